"""Files between Baileys 7.0.0-rc14 and the sandbox's media host, and from Baileys to waD's own download."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.interop.conftest import Baileys, pair
from tests.link.requester import FakeRequester, result
from waD.link.endpoint import Endpoint
from waD.messaging.media.downloads import BlobReference, Downloads
from waD.messaging.media.https import Https
from waD.proto.e2e_pb2 import Message
from waD.sandbox import Sandbox, run_sandbox

ALICE = "15550000001"
BOB = "15550000002"
LIMIT = 64 * 1024 * 1024


def contents(length: int) -> bytes:
    """What the driver sends for a length."""
    return bytes(index * 7 & 255 for index in range(length))


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def own_downloads(sandbox: Sandbox) -> Downloads:
    requester = FakeRequester(lambda _: result(*sandbox.core.media.conn()))
    return Downloads(
        requester, Https(Endpoint(ca_file=sandbox.ca_file)), unix_s=lambda: sandbox.core.world.now_s
    )


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("image", "imageMessage"),
        ("ptt", "audioMessage"),
        ("document", "documentMessage"),
        ("sticker", "stickerMessage"),
    ],
)
async def test_a_phone_gets_what_baileys_sent(
    kind: str, field: str, baileys: Baileys, tmp_path: Path
) -> None:
    """The message is decrypted by the phone, the file fetched and opened by waD."""
    async with run_sandbox(tls=True) as sandbox, baileys(sandbox, tmp_path / "alice") as alice:
        await pair(alice, sandbox, ALICE)
        bob = sandbox.phone(BOB, "Bob")
        sent = await alice.command("sendMedia", to=bob.lid, kind=kind, length=70_001)
        arrived = await bob.wait_message(lambda one: one.id == sent["id"])
        assert arrived.kind == field
        described = getattr(Message.FromString(arrived.body), field)
        assert described.url.startswith(f"https://127.0.0.1:{sandbox.port}/v/")
        reference = BlobReference(
            described.directPath,
            described.mediaKey,
            described.fileSha256,
            described.fileEncSha256,
            described.fileLength,
        )
        opened = await own_downloads(sandbox).fetch(reference, kind, LIMIT)  # type: ignore[arg-type]
        assert opened == contents(70_001)
        assert alice.crashes == []


async def test_another_baileys_gets_what_baileys_sent(baileys: Baileys, tmp_path: Path) -> None:
    async with (
        run_sandbox(tls=True) as sandbox,
        baileys(sandbox, tmp_path / "alice") as alice,
        baileys(sandbox, tmp_path / "bob") as bob,
    ):
        await pair(alice, sandbox, ALICE)
        await pair(bob, sandbox, BOB)
        to = sandbox.phone(BOB).lid
        for kind, length in (
            ("image", 300_000),
            ("video", 11 * 1024 * 1024),
            ("audio", 1),
            ("document", 65_536),
        ):
            sent = await alice.command("sendMedia", to=to, kind=kind, length=length)
            await bob.wait(
                lambda event, sent=sent: event["event"] == "message" and event["key"]["id"] == sent["id"]
            )
            got = await bob.command("download", id=sent["id"])
            assert got == {"length": length, "sha256": digest(contents(length))}
        piece = await bob.command("download", id=sent["id"], start=1000, end=5000)
        assert piece == {"length": 4000, "sha256": digest(contents(65_536)[1000:5000])}
        # What was sent can be fetched by its sender too, after the other has left.
        await bob.command("close")
        assert (await alice.command("download", id=sent["id"]))["length"] == 65_536
        assert [] == alice.crashes == bob.crashes


async def test_baileys_survives_refusals_of_the_host(baileys: Baileys, tmp_path: Path) -> None:
    async with run_sandbox(tls=True) as sandbox, baileys(sandbox, tmp_path / "alice") as alice:
        await pair(alice, sandbox, ALICE)
        bob = sandbox.phone(BOB, "Bob")
        sent = await alice.command("sendMedia", to=bob.lid, kind="image", length=5000)
        for fault in ({"mode": "expired"}, {"code": 404}, {"never": True}):
            sandbox.fault("media-download", **fault)
            with pytest.raises(AssertionError):
                await alice.command("download", id=sent["id"])
        assert (await alice.command("download", id=sent["id"]))["length"] == 5000
        # A refused credential makes it ask for another one, and give up; with that it works.
        sandbox.core.media.forget_auths()
        with pytest.raises(AssertionError, match="upload failed"):
            await alice.command("sendMedia", to=bob.lid, kind="image", length=6000)
        assert await alice.command("sendMedia", to=bob.lid, kind="image", length=6000)
        assert alice.crashes == []
