"""Pairing over a connection: codes in time, what is durable before what, and a server that cheats (chapter 02 §3)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.link.kit import GONE, PAIRED, UNPAIRED, FakeServer, ServerLink, iq, now_ms, result_of, stream_error
from tests.link.memory_store import MemoryStore
from tests.link.phone import LID, PN, Blob, check_sign, pair_success, scan
from waD.e2ee.curve import KeyPair
from waD.link.credentials import Credentials
from waD.link.errors import Disconnected
from waD.link.pairing import RESTART_WAIT_S, Paired, QrCode, pair
from waD.link.payload import ClientProfile
from waD.proto.adv_pb2 import ADVSignedDeviceIdentityHMAC
from waD.sandbox.qr import parse_qr
from waD.wire.jid import JID, SERVER
from waD.wire.node import Node

REFS = tuple(f"2@ref{number}".encode() for number in range(6))


def offer(*refs: bytes, iq_id: str = "D1") -> Node:
    nodes = [Node("ref", {}, ref) for ref in refs or REFS]
    return iq("set", "md", Node("pair-device", {}, nodes), id=iq_id)


class Client:
    """A pairing in the background; `codes` gives what is shown, `cause` how it ended."""

    def __init__(self, server: FakeServer, nursery: trio.Nursery, **options: Any) -> None:
        self.store = MemoryStore(UNPAIRED)
        self.shown: list[QrCode] = []
        self.times: list[float] = []
        self.secrets: list[bytes] = []
        self.seen, self.codes = trio.open_memory_channel[QrCode](100)
        self.ended = trio.Event()
        self.error: BaseException | None = None
        self._server = server
        self._options = options
        nursery.start_soon(self._run)

    async def on_qr(self, code: QrCode) -> None:
        self.shown.append(code)
        self.times.append(trio.current_time())
        # What is shown is durable already.
        assert parse_qr(code.text).adv_secret == self.store.now.adv_secret
        self.secrets.append(self.store.now.adv_secret)
        await self.seen.send(code)

    async def _run(self) -> None:
        options = {"random": os.urandom, "on_qr": self.on_qr, "now_ms": now_ms} | self._options
        try:
            async with self._server.connect(self.store.now) as connection:
                await pair(connection, self.store, ClientProfile(), **options)
        except Exception as error:
            self.error = error
        self.ended.set()

    @property
    def cause(self) -> Any:
        assert isinstance(self.error, Disconnected), self.error
        return self.error.cause

    async def end(self) -> Any:
        await self.ended.wait()
        return self.cause


async def begin(server: FakeServer, nursery: trio.Nursery, **options: Any) -> tuple[Client, ServerLink]:
    client = Client(server, nursery, **options)
    return client, await server.links.receive()


async def show(client: Client, link: ServerLink) -> QrCode:
    """Offer references and take the first code."""
    await link.send(offer())
    assert await link.receive() == Node("iq", {"to": SERVER, "type": "result", "id": "D1"})
    return await client.codes.receive()


async def answer_pings(link: ServerLink, others: trio.MemorySendChannel[Node] | None = None) -> None:
    """Keep the connection alive; everything but pings goes to `others`."""
    try:
        while True:
            node = await link.receive()
            if node.attrs.get("xmlns") == "w:p":
                await link.send(result_of(node))
            elif others is not None:
                await others.send(node)
    except GONE:
        return


# The good way.


async def test_a_whole_pairing(server: FakeServer, nursery: trio.Nursery) -> None:
    client, link = await begin(server, nursery)
    code = await show(client, link)
    assert (code.number, code.of) == (1, 6)
    assert 59.0 < code.lifetime_s <= 60.0
    stanza = scan(code.text, key_index=7)
    await link.send(stanza)
    answer = await link.receive()
    blob = stanza.children()[0].child("device-identity")
    assert blob is not None
    assert check_sign(answer, UNPAIRED.identity.public, blob.data) == "7"
    assert (client.store.now.me_pn, client.store.now.me_lid) == (PN, LID)
    await link.send(stream_error(515))
    await link.close()
    assert (await client.end()).id == "restart"
    assert client.store.now.registered
    assert client.store.now.noise == UNPAIRED.noise


async def test_the_code_has_the_keys_of_this_connection(server: FakeServer, nursery: trio.Nursery) -> None:
    client, link = await begin(server, nursery)
    code = parse_qr((await show(client, link)).text)
    assert (code.ref, code.noise_key, code.identity) == (
        "2@ref0",
        link.client_static,
        UNPAIRED.identity.public,
    )
    assert code.adv_secret != UNPAIRED.adv_secret
    await link.cut()
    assert (await client.end()).id == "pair_socket_lost"


async def test_the_pairing_is_durable_before_the_answer_leaves(
    server: FakeServer, nursery: trio.Nursery
) -> None:
    """Each code's secret, then the account: the answer is on the wire only after the second write."""
    client, link = await begin(server, nursery)
    code = await show(client, link)
    assert client.store.writes == ["credentials"]
    client.store.failure = OSError("disk full")
    await link.send(scan(code.text))
    await client.ended.wait()
    assert isinstance(client.error, OSError)
    assert not client.store.now.registered
    with pytest.raises(GONE):
        await link.receive()


async def test_no_code_is_shown_when_its_secret_cannot_be_stored(
    server: FakeServer, nursery: trio.Nursery
) -> None:
    client, link = await begin(server, nursery)
    client.store.failure = OSError("disk full")
    await link.send(offer())
    await client.ended.wait()
    assert isinstance(client.error, OSError)
    assert client.shown == []


@pytest.mark.parametrize("how", ["close", "cut", "stream_error", "stream_end", "failure"])
async def test_any_end_after_the_answer_means_paired(
    server: FakeServer, nursery: trio.Nursery, how: str
) -> None:
    client, link = await begin(server, nursery)
    await link.send(scan((await show(client, link)).text))
    await link.receive()
    if how == "stream_error":
        await link.send(stream_error(503))
    elif how == "stream_end":
        await link.send(Node("xmlstreamend"))
    elif how == "failure":
        await link.send(Node("failure", {"reason": "500"}))
    await (link.cut() if how == "cut" else link.close())
    found = await client.end()
    assert (found.id, found.code, found.reached) == ("restart", 515, True)


async def test_a_server_that_does_not_end_it(
    server: FakeServer, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    client, link = await begin(server, nursery)
    await link.send(scan((await show(client, link)).text))
    await link.receive()
    began = trio.current_time()
    assert (await client.end()).id == "restart"
    assert trio.current_time() - began == pytest.approx(RESTART_WAIT_S)


async def test_a_second_proof_is_ignored(server: FakeServer, nursery: trio.Nursery) -> None:
    client, link = await begin(server, nursery)
    code = await show(client, link)
    await link.send(scan(code.text), pair_success(b"\xff", id="P2"), scan(code.text, key_index=9))
    answer = await link.receive()
    assert answer.attrs["id"] == "P1"
    await link.send(stream_error(515))
    await link.close()
    with pytest.raises(GONE):
        await link.receive()
    assert (await client.end()).id == "restart"
    assert client.store.writes == ["credentials", "credentials"]


async def test_a_proof_that_can_no_longer_be_answered_is_forgotten(
    server: FakeServer, nursery: trio.Nursery
) -> None:
    client, link = await begin(server, nursery)
    code = await show(client, link)
    await link.send(scan(code.text), stream_error(503))
    await link.close()
    assert (await client.end()).id == "stream_503"
    assert not client.store.now.registered


async def test_lost_while_the_pairing_is_being_stored(server: FakeServer, nursery: trio.Nursery) -> None:
    """Registered in the store: the next login tells whether the server is of the same opinion."""
    client, link = await begin(server, nursery)
    code = await show(client, link)
    storing, stored = trio.Event(), trio.Event()
    commit = client.store.change_credentials

    async def slow(change: Any) -> Any:
        with trio.CancelScope(shield=True):
            storing.set()
            await stored.wait()
            return await commit(change)

    client.store.change_credentials = slow  # type: ignore[method-assign]
    await link.send(scan(code.text))
    await storing.wait()
    await link.cut()
    await trio.testing.wait_all_tasks_blocked()
    stored.set()
    assert (await client.end()).id == "pair_socket_lost"
    assert client.store.now.registered


# Codes in time.


async def test_six_codes_in_160_seconds_then_the_end(
    server: FakeServer, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    client, link = await begin(server, nursery)
    await show(client, link)
    nursery.start_soon(answer_pings, link)
    found = await client.end()
    assert (found.id, found.code) == ("qr_exhausted", 408)
    assert [code.number for code in client.shown] == [1, 2, 3, 4, 5, 6]
    assert [parse_qr(code.text).ref.encode() for code in client.shown] == list(REFS)
    start = client.times[0]
    assert [when - start for when in client.times] == pytest.approx([0, 60, 80, 100, 120, 140], abs=0.01)
    assert [code.lifetime_s for code in client.shown] == pytest.approx([60, 20, 20, 20, 20, 20], abs=0.01)
    assert trio.current_time() - start == pytest.approx(160.0, abs=0.01)
    assert len(set(client.secrets)) == 1
    assert not client.store.now.registered


async def test_the_fourth_code_can_be_scanned(
    server: FakeServer, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    client, link = await begin(server, nursery)
    code = await show(client, link)
    others, answers = trio.open_memory_channel[Node](10)
    nursery.start_soon(answer_pings, link, others)
    for _ in range(3):
        code = await client.codes.receive()
    assert code.number == 4
    await link.send(scan(code.text))
    assert (await answers.receive()).attrs["id"] == "P1"
    await link.send(stream_error(515))
    await link.close()
    assert (await client.end()).id == "restart"


async def test_a_new_offer_replaces_the_old_one_and_its_secret(
    server: FakeServer, nursery: trio.Nursery
) -> None:
    client, link = await begin(server, nursery)
    old = await show(client, link)
    await link.send(offer(b"2@new", iq_id="D2"))
    assert (await link.receive()).attrs["id"] == "D2"
    new = await client.codes.receive()
    assert (new.number, new.of, parse_qr(new.text).ref) == (1, 1, "2@new")
    assert parse_qr(new.text).adv_secret != parse_qr(old.text).adv_secret
    await link.send(scan(old.text))
    refusal = await link.receive()
    assert refusal.children()[0].attrs == {"code": "401", "text": "hmac-mismatch"}
    assert (await client.end()).id == "pair_hmac"


async def test_refresh_makes_a_new_secret_for_the_same_code(
    server: FakeServer, nursery: trio.Nursery
) -> None:
    client, link = await begin(server, nursery)
    old = await show(client, link)
    await link.send(Node("notification", {"type": "companion_reg_refresh", "id": "N1", "from": SERVER}))
    ack = await link.receive()
    assert (ack.tag, ack.attrs["class"], ack.attrs["id"]) == ("ack", "notification", "N1")
    new = await client.codes.receive()
    assert (new.number, parse_qr(new.text).ref) == (old.number, parse_qr(old.text).ref)
    assert parse_qr(new.text).adv_secret != parse_qr(old.text).adv_secret
    assert new.lifetime_s <= old.lifetime_s
    await link.send(scan(new.text))
    assert (await link.receive()).attrs["type"] == "result"
    await link.cut()
    assert (await client.end()).id == "restart"


async def test_a_refresh_by_a_stranger_or_without_a_code_is_only_acked(
    server: FakeServer, nursery: trio.Nursery
) -> None:
    client, link = await begin(server, nursery)
    refresh = {"type": "companion_reg_refresh", "id": "N1"}
    await link.send(Node("notification", {**refresh, "from": SERVER}))
    assert (await link.receive()).tag == "ack"
    await show(client, link)
    stranger = JID("15550000009", "s.whatsapp.net")
    await link.send(Node("notification", {**refresh, "from": stranger}))
    assert (await link.receive()).attrs["to"] == stranger
    await link.cut()
    await client.end()
    assert len(client.shown) == 1


async def test_a_passkey_request_is_reported(
    server: FakeServer, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    client, link = await begin(server, nursery)
    await show(client, link)
    await link.send(Node("notification", {"type": "passkey_prologue_request", "id": "N1", "from": SERVER}))
    assert (await link.receive()).tag == "ack"
    assert "passkey" in caplog.text
    await link.cut()
    await client.end()


async def test_other_stanzas_do_not_disturb(server: FakeServer, nursery: trio.Nursery) -> None:
    client, link = await begin(server, nursery)
    await link.send(
        Node("ib", {}, [Node("offline", {"count": "0"})]),
        Node("success", {"t": "1"}),
        iq("set", "news", id="x"),
        iq("set", "md", Node("odd"), id="y"),
        iq("get", "urn:xmpp:ping", id="z"),
        Node("message", {"id": "1"}),
    )
    assert (await link.receive()).attrs["id"] == "z"
    await show(client, link)
    await link.cut()
    assert (await client.end()).id == "pair_socket_lost"


# Offers that cannot be used.


@pytest.mark.parametrize("refs", [[b""], [b"\xff"], [b"x" * 257], [b"r"] * 13])
async def test_a_malformed_first_offer_ends_it(
    server: FakeServer, nursery: trio.Nursery, refs: list[bytes]
) -> None:
    client, link = await begin(server, nursery)
    await link.send(offer(*refs))
    assert (await link.receive()).attrs["type"] == "error"
    assert (await client.end()).id == "pair_refused"
    assert client.shown == []


async def test_a_malformed_later_offer_leaves_the_old_one(server: FakeServer, nursery: trio.Nursery) -> None:
    client, link = await begin(server, nursery)
    code = await show(client, link)
    await link.send(iq("set", "md", Node("pair-device"), id="D2"))
    refusal = await link.receive()
    assert (refusal.attrs["type"], refusal.attrs["id"]) == ("error", "D2")
    await link.send(scan(code.text))
    assert (await link.receive()).attrs["type"] == "result"
    await link.cut()
    assert (await client.end()).id == "restart"


async def test_no_offer_at_all(
    server: FakeServer, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    client, link = await begin(server, nursery)
    nursery.start_soon(answer_pings, link)
    found = await client.end()
    assert (found.id, found.age_s) == ("login_timeout", pytest.approx(60.0))


@pytest.mark.parametrize(
    ("last", "cause_id"),
    [
        (Node("failure", {"reason": "405"}), "f405"),
        (Node("ib", {}, [Node("downgrade_webclient")]), "f411"),
        (stream_error(503), "stream_503"),
        (Node("xmlstreamend"), "pair_socket_lost"),
    ],
)
async def test_refused_by_the_server(
    server: FakeServer, nursery: trio.Nursery, last: Node, cause_id: str
) -> None:
    client, link = await begin(server, nursery)
    await show(client, link)
    await link.send(last)
    await link.close()
    assert (await client.end()).id == cause_id


# Proofs that do not hold.


def by_another_account(text: str) -> Node:
    code = parse_qr(text)
    wrong = Blob(code.identity, code.adv_secret)
    wrong.account_key = KeyPair.generate(os.urandom).public
    return pair_success(wrong.build())


def with_a_flipped_mac(text: str) -> Node:
    code = parse_qr(text)
    outer = ADVSignedDeviceIdentityHMAC.FromString(Blob(code.identity, code.adv_secret).build())
    outer.hmac = bytes(32)
    return pair_success(outer.SerializeToString())


def for_another_device(text: str) -> Node:
    code = parse_qr(text)
    blob = Blob(code.identity, code.adv_secret).build()
    return pair_success(blob, device={"jid": PN.bare, "lid": LID})


def hosted_by_the_mac_only(text: str) -> Node:
    code = parse_qr(text)
    return pair_success(Blob(code.identity, code.adv_secret, hosted_account=True, hosted_mac=False).build())


def truncated(text: str) -> Node:
    code = parse_qr(text)
    return pair_success(Blob(code.identity, code.adv_secret).build()[:50])


@pytest.mark.parametrize(
    ("cheat", "code", "text", "cause_id"),
    [
        (with_a_flipped_mac, 401, "hmac-mismatch", "pair_hmac"),
        (hosted_by_the_mac_only, 401, "hmac-mismatch", "pair_hmac"),
        (by_another_account, 401, "signature-mismatch", "pair_sig"),
        (for_another_device, 500, "internal-error", "pair_refused"),
        (truncated, 500, "internal-error", "pair_refused"),
    ],
)
async def test_a_wrong_proof(
    server: FakeServer, nursery: trio.Nursery, cheat: Any, code: int, text: str, cause_id: str
) -> None:
    client, link = await begin(server, nursery)
    shown = await show(client, link)
    await link.send(cheat(shown.text))
    answer = await link.receive()
    assert (answer.attrs["type"], answer.attrs["id"]) == ("error", "P1")
    assert answer.children()[0].attrs == {"code": str(code), "text": text}
    found = await client.end()
    assert found.id == cause_id
    assert parse_qr(shown.text).adv_secret.hex() not in found.message
    after = client.store.now
    assert not after.registered
    assert after.identity != UNPAIRED.identity
    assert after.noise != UNPAIRED.noise
    assert after.adv_secret != parse_qr(shown.text).adv_secret


async def test_a_replayed_proof_of_an_earlier_pairing(server: FakeServer, nursery: trio.Nursery) -> None:
    first, link = await begin(server, nursery)
    stanza = scan((await show(first, link)).text)
    await link.cut()
    await first.end()
    second, link = await begin(server, nursery)
    await show(second, link)
    await link.send(stanza)
    assert (await link.receive()).attrs["type"] == "error"
    assert (await second.end()).id == "pair_hmac"


async def test_a_proof_before_any_code(server: FakeServer, nursery: trio.Nursery) -> None:
    client, link = await begin(server, nursery)
    await link.send(pair_success(Blob(UNPAIRED.identity.public, os.urandom(32)).build()))
    assert (await link.receive()).attrs["type"] == "error"
    assert (await client.end()).id == "pair_hmac"


async def test_another_account_than_the_meant_one(server: FakeServer, nursery: trio.Nursery) -> None:
    asked: list[Paired] = []

    def accept(paired: Paired) -> bool:
        asked.append(paired)
        return False

    client, link = await begin(server, nursery, accept=accept)
    await link.send(scan((await show(client, link)).text))
    assert (await link.receive()).children()[0].attrs == {"code": "500", "text": "internal-error"}
    assert (await client.end()).id == "pair_refused"
    assert [paired.jid for paired in asked] == [PN]
    assert client.store.now.me_pn is None


async def test_the_meant_account(server: FakeServer, nursery: trio.Nursery) -> None:
    client, link = await begin(server, nursery, accept=lambda paired: paired.jid == PN)
    await link.send(scan((await show(client, link)).text))
    assert (await link.receive()).attrs["type"] == "result"
    await link.cut()
    assert (await client.end()).id == "restart"


# Use.


async def test_registered_credentials_are_not_paired_again(server: FakeServer) -> None:
    store = MemoryStore(PAIRED)
    with pytest.raises(ValueError, match="new ones"):
        async with server.connect(UNPAIRED) as connection:
            await pair(connection, store, ClientProfile(), random=os.urandom, on_qr=_never, now_ms=now_ms)


async def _never(_: QrCode) -> None:
    raise AssertionError


async def test_a_fault_while_showing_comes_out(server: FakeServer, nursery: trio.Nursery) -> None:
    async def broken(_: QrCode) -> None:
        raise KeyError("screen")

    client, link = await begin(server, nursery, on_qr=broken)
    await link.send(offer())
    await client.ended.wait()
    assert isinstance(client.error, KeyError)


async def test_cancelled_while_a_code_is_shown(server: FakeServer) -> None:
    store = MemoryStore(UNPAIRED)
    shown = trio.Event()

    async def on_qr(_: QrCode) -> None:
        shown.set()

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as own:

            async def client() -> None:
                async with server.connect(UNPAIRED) as connection:
                    await pair(
                        connection, store, ClientProfile(), random=os.urandom, on_qr=on_qr, now_ms=now_ms
                    )

            own.start_soon(client)
            link = await server.links.receive()
            await link.send(offer())
            await shown.wait()
            scope.cancel()
    assert scope.cancelled_caught
    await link.wait_closed()
    assert not store.now.registered


# Killed between any two steps.

CRASHING = """
import os, pathlib, sys
import trio
from tests.link.kit import UNPAIRED, FakeServer, now_ms
from tests.link.memory_store import MemoryStore
from tests.link.phone import scan
from tests.link.test_pairing import offer
from waD.link.pairing import pair
from waD.link.payload import ClientProfile

directory = pathlib.Path(sys.argv[1])


class FileStore(MemoryStore):
    async def change_credentials(self, change):
        after = await super().change_credentials(change)
        (directory / "credentials").write_bytes(after.serialize())
        return after


async def main():
    async with trio.open_nursery() as nursery:
        server = FakeServer(nursery)
        store = FileStore(UNPAIRED)

        async def serve():
            link = await server.links.receive()
            await link.send(offer())
            await link.receive()
            await link.send(scan((await codes.receive()).text))
            await link.receive()
            (directory / "answered").touch()

        seen, codes = trio.open_memory_channel(10)
        nursery.start_soon(serve)
        async with server.connect(UNPAIRED) as connection:
            await pair(
                connection, store, ClientProfile(), random=os.urandom, on_qr=seen.send, now_ms=now_ms
            )


trio.run(main)
"""


@pytest.mark.parametrize(
    ("mark", "registered", "may_be_answered"),
    [
        ("pair.before_commit", False, False),
        ("pair.after_commit", True, False),
        ("pair.after_send", True, True),
    ],
)
def test_killed(tmp_path: Path, mark: str, registered: bool, may_be_answered: bool) -> None:
    environment = {**os.environ, "WAD_CRASH_AT": mark, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, "-c", CRASHING, str(tmp_path)], env=environment, capture_output=True, timeout=60
    )
    assert done.returncode == -9, done.stderr
    after = Credentials.parse((tmp_path / "credentials").read_bytes())
    assert after.registered is registered
    if not may_be_answered:
        assert not (tmp_path / "answered").exists()
