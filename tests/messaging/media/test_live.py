"""Downloads over real TLS from the sandbox's media host, with the faults of hosts and of the way there."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.link.requester import FakeRequester, result
from waD.e2ee.syncd.keys import MutationKeys
from waD.e2ee.syncd.patches import apply_snapshot, parse_snapshot
from waD.link.endpoint import Endpoint
from waD.messaging.media.downloads import BlobReference, Downloads
from waD.messaging.media.errors import MediaError
from waD.messaging.media.https import Https
from waD.proto.appstate_pb2 import ExternalBlobReference
from waD.sandbox import Sandbox, Settings, run_sandbox
from waD.wire.node import Node

LIMIT = 64 * 1024 * 1024
PLAIN = b"a snapshot of a collection" * 40_000


class Visit:
    """A sandbox with a file, and downloads that trust it."""

    def __init__(self, sandbox: Sandbox, *, ca_file: Path | None, proxy: str | None = None) -> None:
        self.sandbox = sandbox
        self.requester = FakeRequester(self._answer)
        self.downloads = Downloads(
            self.requester,
            Https(Endpoint(ca_file=ca_file, proxy=proxy)),
            unix_s=lambda: sandbox.core.world.now_s,
        )
        blob = sandbox.core.media.seal("md-app-state", PLAIN)
        self.reference = BlobReference(
            blob.record.direct_path, blob.media_key, blob.file_sha256, blob.record.digest, blob.length
        )

    def _answer(self, _: Node) -> Node:
        return result(*self.sandbox.core.media.conn())

    async def fetch(self) -> bytes:
        return await self.downloads.fetch(self.reference, "md-app-state", LIMIT)

    async def refusal(self) -> MediaError:
        with pytest.raises(MediaError) as caught:
            await self.fetch()
        return caught.value


@asynccontextmanager
async def visit(*, trusting: bool = True, proxy: str | None = None) -> AsyncIterator[Visit]:
    async with run_sandbox(tls=True) as sandbox:
        yield Visit(sandbox, ca_file=sandbox.ca_file if trusting else None, proxy=proxy)


async def test_a_file_of_a_megabyte(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with visit() as one:
        assert await one.fetch() == PLAIN
        assert await one.fetch() == PLAIN
        assert len(one.requester.sent) == 1
    assert "_n.enc" not in caplog.text


async def test_a_certificate_of_an_unknown_authority() -> None:
    async with visit(trusting=False) as one:
        failure = await one.refusal()
        assert (failure.code, failure.permanent) == ("tls", False)
        assert "certificate is not trusted" in str(failure)


async def test_no_plain_text_ever() -> None:
    async with run_sandbox() as sandbox:
        failure = await Visit(sandbox, ca_file=None).refusal()
        assert failure.code == "network"


@pytest.mark.parametrize(
    ("faults", "code"),
    [
        ([{"mode": "truncated"}], None),
        ([{"mode": "damaged"}], None),
        ([{"never": True}, {"code": 503, "backoffS": 0}], None),
        ([{"code": 401}], None),
        ([{"code": 403}], None),
        ([{"mode": "huge"}], None),
        ([{"mode": "huge"}, {"mode": "huge"}], "too_large"),
        ([{"mode": "damaged"}, {"mode": "damaged"}], "enc_hash"),
        ([{"mode": "redirect"}], "redirect"),
        ([{"mode": "expired"}], "gone"),
        ([{"code": 404}], "gone"),
        ([{"code": 410}], "gone"),
        ([{"code": 403, "count": 2}], "forbidden"),
        ([{"code": 401, "count": 2}], "credential"),
        ([{"code": 507}], "throttled"),
        ([{"code": 418}], "status"),
        ([{"never": True, "count": 3}], "network"),
        ([{"mode": "truncated", "count": 3}], "network"),
    ],
)
async def test_faults_of_the_host(faults: list[dict[str, Any]], code: str | None) -> None:
    async with visit() as one:
        for fault in faults:
            one.sandbox.fault("media-download", **fault)
        if code is None:
            assert await one.fetch() == PLAIN
        else:
            failure = await one.refusal()
            assert failure.code == code
            assert failure.permanent == (code in ("gone", "enc_hash", "too_large"))
        assert one.sandbox.core.world.faults.report() == []


async def test_a_snapshot_of_the_app_state() -> None:
    async with run_sandbox(tls=True, settings=Settings(app_state_snapshots=True)) as sandbox:
        phone = sandbox.phone("15550000001", "Alice").phone
        asked = Node("collection", {"name": "critical_block", "return_snapshot": "true"})
        (sync,) = sandbox.core.app_state.sync(
            phone.device, Node("iq", content=[Node("sync", content=[asked])])
        )
        found = sync.children()[0].child("snapshot")
        assert found is not None
        blob = ExternalBlobReference.FromString(found.data)
        reference = BlobReference(
            blob.directPath, blob.mediaKey, blob.fileSha256, blob.fileEncSha256, blob.fileSizeBytes
        )
        one = Visit(sandbox, ca_file=sandbox.ca_file)
        snapshot = parse_snapshot(await one.downloads.fetch(reference, "md-app-state", LIMIT))
        keys = {key.id: MutationKeys.expand(key.data) for key in phone.keys.record.app_keys}
        applied = apply_snapshot("critical_block", snapshot, keys)
        assert any(entry.value and entry.value.pushNameSetting.name == "Alice" for entry in applied.sets)
        assert not applied.mac_mismatch


async def test_cancelled_in_the_middle_of_a_slow_answer() -> None:
    async with visit() as one:
        one.sandbox.fault("media-download", mode="slow", delayMs=50)
        with trio.move_on_after(1) as scope:
            await one.fetch()
        assert scope.cancelled_caught
        assert await one.fetch() == PLAIN


async def test_through_the_proxy_of_the_settings(nursery: trio.Nursery) -> None:
    seen: list[bytes] = []

    async def tunnel(stream: trio.SocketStream) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await stream.receive_some(1)
        seen.append(head)
        host, _, port = head.split()[1].decode().partition(":")
        async with stream, await trio.open_tcp_stream(host, int(port)) as far, trio.open_nursery() as both:
            await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
            both.start_soon(copy, stream, far)
            both.start_soon(copy, far, stream)

    async def copy(source: trio.SocketStream, target: trio.SocketStream) -> None:
        try:
            async for data in source:
                await target.send_all(data)
            await target.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    listeners = await nursery.start(trio.serve_tcp, tunnel, 0)
    port = listeners[0].socket.getsockname()[1]
    async with visit(proxy=f"http://me:a%40b@127.0.0.1:{port}") as one:
        assert await one.fetch() == PLAIN
        head = seen[0]
        assert head.startswith(f"CONNECT 127.0.0.1:{one.sandbox.port} ".encode())
        assert b"bWU6YUBi" in head, "me:a@b"
        assert b"_n.enc" not in head
    nursery.cancel_scope.cancel()


async def test_a_proxy_that_refuses_does_not_leak_its_password(nursery: trio.Nursery) -> None:
    async def refuse(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(1000)
            await stream.send_all(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")

    listeners = await nursery.start(trio.serve_tcp, refuse, 0)
    port = listeners[0].socket.getsockname()[1]
    async with visit(proxy=f"http://me:hunter2@127.0.0.1:{port}") as one:
        failure = await one.refusal()
        assert failure.code == "network"
        assert "hunter2" not in str(failure) + repr(failure.__cause__)
    nursery.cancel_scope.cancel()
