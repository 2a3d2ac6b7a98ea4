"""Which failure is followed by what, and that nothing unverified is handed out (chapter 05 §1.4, §2.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import trio
import trio.testing

from tests.link.requester import FakeRequester
from tests.messaging.media.hosts_kit import KEY, PLAIN, Internet, Script, conn_node, in_turn, sealed
from waD.e2ee import media
from waD.link.causes import cause
from waD.link.errors import Disconnected
from waD.messaging.media import downloads
from waD.messaging.media.downloads import BlobReference, Downloads
from waD.messaging.media.errors import MediaError
from waD.wire.node import Node

Clock = trio.testing.MockClock
FILE, REFERENCE = sealed()
LIMIT = 64 * 1024 * 1024
GOOD = Script(body=FILE, length=len(FILE))
BROKEN = MediaError("network", "reset")


def make(internet: Internet, *conns: Node) -> tuple[Downloads, FakeRequester]:
    link = FakeRequester(conns or [conn_node("one.test", "two.test", "last.test!")])
    return Downloads(link, internet, unix_s=lambda: 1.7e9), link


async def refusal(
    internet: Internet, *conns: Node, reference: BlobReference = REFERENCE, limit: int = LIMIT
) -> MediaError:
    fetching, _ = make(internet, *conns)
    with pytest.raises(MediaError) as caught:
        await fetching.fetch(reference, "md-app-state", limit)
    assert internet.opened == 0
    return caught.value


async def test_a_file_arrives(autojump_clock: Clock) -> None:
    internet = in_turn(GOOD)
    fetching, link = make(internet)
    assert await fetching.fetch(REFERENCE, "md-app-state", LIMIT) == PLAIN
    assert internet.urls[0].startswith("https://one.test/v/t62.7118-24/1_n.enc?ccb=11-4&")
    assert internet.opened == 0
    assert len(link.sent) == 1


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 100_000])
async def test_every_size_with_and_without_announcements(length: int, autojump_clock: Clock) -> None:
    data, reference = sealed(bytes(length))
    bare = replace(reference, file_sha256=None, length=None)
    fetching, _ = make(in_turn(Script(body=data, length=len(data)), Script(body=data)))
    assert await fetching.fetch(reference, "md-app-state", length) == bytes(length)
    assert await fetching.fetch(bare, "md-app-state", length) == bytes(length)


@pytest.mark.parametrize(
    "scripts",
    [
        [Script(408)],
        [Script(500)],
        [Script(503)],
        [Script(error=BROKEN)],
        [Script(body=FILE[:50], breaks=BROKEN)],
    ],
)
async def test_troubles_of_a_host_are_tried_again_there(scripts: list[Script], autojump_clock: Clock) -> None:
    internet = in_turn(*scripts, *scripts, GOOD)
    fetching, _ = make(internet)
    assert await fetching.fetch(REFERENCE, "md-app-state", LIMIT) == PLAIN
    assert internet.asked == ["one.test"] * 3
    assert [at - internet.times[0] for at in internet.times] == [0, 1, 3]


async def test_then_at_the_next_hosts(autojump_clock: Clock) -> None:
    internet = Internet(lambda name: GOOD if name == "last.test" else Script(502))
    fetching, _ = make(internet)
    assert await fetching.fetch(REFERENCE, "md-app-state", LIMIT) == PLAIN
    assert internet.asked == [*["one.test"] * 3, *["two.test"] * 3, "last.test"]
    failure = await refusal(Internet(lambda _: Script(502)))
    assert (failure.code, failure.permanent, failure.status) == ("server", False, 502)
    failure = await refusal(Internet(lambda _: Script(error=BROKEN)))
    assert (failure.code, failure.permanent) == ("network", False)


async def test_hosts_say_how_long_to_wait(autojump_clock: Clock) -> None:
    internet = in_turn(Script(503, retry_after_s=7), Script(503, retry_after_s=5000), GOOD)
    fetching, _ = make(internet)
    await fetching.fetch(REFERENCE, "md-app-state", LIMIT)
    assert [at - internet.times[0] for at in internet.times] == [0, 7, 67]


@pytest.mark.parametrize(
    "script",
    [
        Script(302),
        Script(307),
        Script(400),
        Script(416),
        Script(206, body=FILE),
        Script(204),
        Script(error=MediaError("tls", "untrusted")),
    ],
)
async def test_oddities_are_asked_elsewhere_at_once(script: Script, autojump_clock: Clock) -> None:
    internet = in_turn(script, GOOD)
    fetching, _ = make(internet)
    assert await fetching.fetch(REFERENCE, "md-app-state", LIMIT) == PLAIN
    assert internet.asked == ["one.test", "two.test"]
    failure = await refusal(Internet(lambda _: script))
    assert failure.code in ("redirect", "status", "tls")
    assert not failure.permanent


@pytest.mark.parametrize(
    ("script", "code", "permanent"),
    [
        (Script(404), "gone", True),
        (Script(410), "gone", True),
        (Script(403, body=b"<p>URL signature expired</p>"), "gone", True),
        (Script(507, retry_after_s=30), "throttled", False),
    ],
)
async def test_what_no_other_host_would_say_otherwise(
    script: Script, code: str, permanent: bool, autojump_clock: Clock
) -> None:
    internet = in_turn(script)
    failure = await refusal(internet)
    assert (failure.code, failure.permanent, failure.status) == (code, permanent, script.status)
    assert failure.retry_after_s == script.retry_after_s
    assert internet.asked == ["one.test"]


async def test_a_path_whose_time_is_over_is_gone(autojump_clock: Clock) -> None:
    _, reference = sealed(path="/x?oe=60000000")
    assert (await refusal(in_turn(Script(403, body=b"Forbidden")), reference=reference)).code == "gone"


@pytest.mark.parametrize("status", [401, 403])
async def test_a_credential_is_renewed_once(status: int, autojump_clock: Clock) -> None:
    old, new = conn_node("old.test"), conn_node("new.test", auth="fresh")
    internet = in_turn(Script(status, body=b"x" * 100_000), GOOD)
    fetching, link = make(internet, old, new)
    assert await fetching.fetch(REFERENCE, "md-app-state", LIMIT) == PLAIN
    assert internet.asked == ["old.test", "new.test"]
    assert len(link.sent) == 2
    failure = await refusal(in_turn(Script(status), Script(status)), old, new)
    assert failure.code == ("credential" if status == 401 else "forbidden")
    assert not failure.permanent


def damaged(at: int) -> bytes:
    data = bytearray(FILE)
    data[at] ^= 1
    return bytes(data)


DAMAGE = {
    "flipped": (Script(body=damaged(5)), "enc_hash"),
    "flipped mac": (Script(body=damaged(-1)), "enc_hash"),
    "truncated": (Script(body=FILE[:-16]), "enc_hash"),
    "only a stub": (Script(body=b"<html>"), "length"),
    "empty": (Script(), "length"),
    "too long": (Script(body=FILE + b"x"), "too_large"),
    "announced too long": (Script(body=FILE, length=len(FILE) + 1), "too_large"),
    "announced huge": (Script(length=2**40), "too_large"),
}


@pytest.mark.parametrize(("script", "code"), DAMAGE.values(), ids=DAMAGE)
async def test_damage_is_healed_once_at_another_host(
    script: Script, code: str, autojump_clock: Clock
) -> None:
    internet = in_turn(script, GOOD)
    fetching, _ = make(internet)
    assert await fetching.fetch(REFERENCE, "md-app-state", LIMIT) == PLAIN
    assert internet.asked == ["one.test", "two.test"]
    internet = in_turn(script, script)
    failure = await refusal(internet)
    assert (failure.code, failure.permanent) == (code, True)
    assert internet.asked == ["one.test", "two.test"]


async def test_the_only_host_gets_a_second_chance(autojump_clock: Clock) -> None:
    internet = in_turn(Script(body=damaged(5)), GOOD)
    fetching, _ = make(internet, conn_node("one.test"))
    assert await fetching.fetch(REFERENCE, "md-app-state", LIMIT) == PLAIN
    internet = in_turn(Script(body=damaged(5)), *[Script(500)] * 3)
    assert (await refusal(internet, conn_node("one.test"))).code == "server"


async def test_the_last_of_several_hosts_gets_one_too(autojump_clock: Clock) -> None:
    internet = in_turn(Script(302), Script(body=damaged(5)), GOOD)
    fetching, _ = make(internet, conn_node("one.test", "two.test"))
    assert await fetching.fetch(REFERENCE, "md-app-state", LIMIT) == PLAIN
    assert internet.asked == ["one.test", "two.test", "two.test"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda r: replace(r, file_sha256=bytes(32)), "plain_hash"),
        (lambda r: replace(r, length=r.length + 1), "file_length"),
        (lambda r: replace(r, media_key=bytes(32)), "mac"),
    ],
)
async def test_a_sender_that_contradicts_itself(
    change: Callable[[BlobReference], BlobReference], code: str, autojump_clock: Clock
) -> None:
    internet = Internet(lambda _: Script(body=FILE))
    failure = await refusal(internet, reference=change(REFERENCE))
    assert (failure.code, failure.permanent) == (code, True)
    assert len(internet.asked) == (2 if code == "mac" else 1)


async def test_bad_padding_under_a_right_mac_is_final(autojump_clock: Clock) -> None:
    keys = media.expand(KEY, "md-app-state")
    cipher = media.Cipher(media.AES256(keys.cipher_key), media.CBC(keys.iv)).encryptor()
    body = cipher.update(bytes(16))
    body += media.hmac.digest(keys.mac_key, keys.iv + body, "sha256")[:10]
    reference = replace(REFERENCE, enc_sha256=media.hashlib.sha256(body).digest(), length=None)
    failure = await refusal(in_turn(Script(body=body)), reference=reference)
    assert (failure.code, failure.permanent) == ("padding", True)


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        (replace(REFERENCE, media_key=b"short"), "reference"),
        (replace(REFERENCE, enc_sha256=b""), "reference"),
        (replace(REFERENCE, file_sha256=bytes(31)), "reference"),
        (replace(REFERENCE, length=-1), "reference"),
        (replace(REFERENCE, length=LIMIT + 1), "too_large"),
        (replace(REFERENCE, direct_path="//evil.test/x"), "malicious_path"),
        (replace(REFERENCE, direct_path=""), "malicious_path"),
    ],
)
async def test_references_nobody_is_asked_about(
    reference: BlobReference, code: str, autojump_clock: Clock
) -> None:
    internet = in_turn()
    fetching, link = make(internet)
    with pytest.raises(MediaError) as caught:
        await fetching.fetch(reference, "md-app-state", LIMIT)
    assert (caught.value.code, caught.value.permanent) == (code, True)
    assert (internet.asked, link.sent) == ([], [])


async def test_the_limit_counts_when_no_length_is_known(autojump_clock: Clock) -> None:
    data, reference = sealed(bytes(105))
    bare = replace(reference, length=None)
    for script in (Script(body=data), Script(body=data, length=len(data))):
        assert (
            await refusal(Internet(lambda _, script=script: script), reference=bare, limit=104)
        ).code == "too_large"  # type: ignore[misc]
        assert (
            await refusal(Internet(lambda _, script=script: script), reference=bare, limit=50)
        ).code == "too_large"  # type: ignore[misc]


async def test_a_host_that_never_ends_is_cut_off(autojump_clock: Clock) -> None:
    endless = Script(body=bytes(10**7), pause_s=0.001)
    internet = Internet(lambda _: endless)
    began = trio.current_time()
    assert (await refusal(internet)).code == "too_large"
    assert trio.current_time() - began < 1


async def test_a_host_that_drips_is_left(autojump_clock: Clock) -> None:
    drip = Script(body=FILE, piece=1, pause_s=20)
    failure = await refusal(Internet(lambda _: drip))
    assert (failure.code, failure.permanent) == ("timeout", False)
    assert trio.current_time() < downloads.OVERALL_S + 1


async def test_two_at_a_time(autojump_clock: Clock) -> None:
    internet = Internet(lambda _: replace(GOOD, pause_s=1))
    fetching, _ = make(internet)
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, internet.opened)
            await trio.sleep(0.25)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        async with trio.open_nursery() as fetches:
            for _ in range(6):
                fetches.start_soon(fetching.fetch, REFERENCE, "md-app-state", LIMIT)
        nursery.cancel_scope.cancel()
    assert most == 2
    assert len(internet.asked) == 6


async def test_an_old_answer_is_renewed_beside_the_download(autojump_clock: Clock) -> None:
    class Slow(FakeRequester):
        async def request(self, node: Node, timeout: float | None = None) -> Node:  # noqa: ASYNC109
            await trio.sleep(0.5)
            return await super().request(node, timeout)

    link = Slow([conn_node("one.test"), conn_node("two.test")])
    internet = Internet(lambda _: replace(GOOD, pause_s=1))
    fetching = Downloads(link, internet, unix_s=lambda: 1.7e9)
    for wait_s in (0, 301, 0):
        await trio.sleep(wait_s)
        assert await fetching.fetch(REFERENCE, "md-app-state", LIMIT) == PLAIN
    assert internet.asked == ["one.test", "one.test", "two.test"]
    assert len(link.sent) == 2


async def test_a_failure_beside_a_renewal_is_no_group(autojump_clock: Clock) -> None:
    link = FakeRequester([conn_node("one.test"), Disconnected(cause("eof", "gone"))])
    internet = in_turn(GOOD, Script(404))
    fetching = Downloads(link, internet, unix_s=lambda: 1.7e9)
    await fetching.fetch(REFERENCE, "md-app-state", LIMIT)
    await trio.sleep(301)
    with pytest.raises(MediaError, match="gone"):
        await fetching.fetch(REFERENCE, "md-app-state", LIMIT)


async def test_cancelled_in_the_middle_leaves_nothing_open(autojump_clock: Clock) -> None:
    internet = Internet(lambda _: replace(GOOD, pause_s=10))
    fetching, _ = make(internet)
    with trio.move_on_after(5) as scope:
        await fetching.fetch(REFERENCE, "md-app-state", LIMIT)
    assert scope.cancelled_caught
    assert internet.opened == 0


async def test_without_a_connection(autojump_clock: Clock) -> None:
    fetching = Downloads(FakeRequester([Disconnected(cause("eof", "gone"))]), in_turn(), unix_s=lambda: 0.0)
    with pytest.raises(Disconnected):
        await fetching.fetch(REFERENCE, "md-app-state", LIMIT)


async def test_errors_and_references_show_no_secrets(autojump_clock: Clock) -> None:
    failure = await refusal(in_turn(Script(404)))
    for text in (repr(REFERENCE), str(failure), repr(failure)):
        assert KEY.hex() not in text
        assert repr(KEY)[2:20] not in text
        assert "_n.enc" not in text
