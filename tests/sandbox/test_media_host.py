"""The media host over HTTP (chapter 05 §1.2–1.5, chapter 07 §14)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
import trio

from tests.sandbox.core_client import new_core
from waD.e2ee.media import file_token, parse_token
from waD.sandbox import Sandbox, SandboxError, Settings, run_sandbox
from waD.sandbox.media_host import byte_range

BODY = bytes(range(256)) * 1000


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110 - a directory tells nobody
            await trio.sleep(0.01)


class Guest:
    """A client of a sandbox's media host."""

    def __init__(self, sandbox: Sandbox, http: httpx.AsyncClient) -> None:
        self.sandbox = sandbox
        self.http = http
        self.auth = self.credential()

    def credential(self) -> str:
        (conn,) = self.sandbox.core.media.conn()
        return conn.text("auth") or ""

    async def upload(self, body: Any = BODY, **changes: str) -> httpx.Response:
        """Upload with the right credential and tokens, but for the changes."""
        token = file_token(hashlib.sha256(body if isinstance(body, bytes) else BODY).digest())
        path = changes.pop("path", f"/mms/image/{changes.pop('name', token)}")
        query = "&".join(
            f"{key}={quote(value)}" for key, value in {"auth": self.auth, "token": token, **changes}.items()
        )
        return await self.http.post(f"{path}?{query}", content=body)

    async def path(self, body: bytes = BODY) -> str:
        """Upload something and tell where it is, without query."""
        answer = (await self.upload(body)).json()
        return str(answer["direct_path"]).partition("?")[0]


@asynccontextmanager
async def guest(**options: Any) -> AsyncIterator[Guest]:
    async with (
        run_sandbox(**options) as sandbox,
        httpx.AsyncClient(base_url=sandbox.admin_url, trust_env=False) as http,
    ):
        yield Guest(sandbox, http)


async def test_up_and_down_again() -> None:
    async with guest() as one:
        answer = await one.upload()
        assert answer.status_code == 200
        place = answer.json()
        host = f"https://{one.sandbox.core.world.settings.media_host}"
        assert place["url"] == f"{host}{place['direct_path']}&mms3=true"
        assert place["direct_path"].startswith("/v/t62.7118-24/")
        assert {"ccb", "oh", "oe", "_nc_sid"} <= {
            part.partition("=")[0] for part in urlsplit(place["url"]).query.split("&")
        }
        assert place["handle"]
        got = await one.http.get(place["direct_path"])
        assert (got.status_code, got.content) == (200, BODY)
        assert got.headers["content-type"] == "application/octet-stream"
        head = await one.http.head(place["direct_path"])
        assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(BODY)), b"")
        assert (await one.upload()).json() == place, "the same file has the same place"


async def test_any_query_is_tolerated() -> None:
    async with guest() as one:
        path = await one.path()
        for tail in (
            "",
            "?",
            "?auth=x&token=y",
            "&hash=abc&mms-type=image&__wa-mms=",
            "?a=1?b=2",
            "?" + "x=1&" * 500,
        ):
            assert (await one.http.get(path + tail)).content == BODY, tail
        for elsewhere in (
            path + "x",
            path[:-1],
            "/v/t62.7118-24/",
            "/v/x",
            "/mms/image/x",
        ):
            assert (await one.http.get(elsewhere)).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/mms/image/{}",
        "/mms/md-app-state/{}",
        "/product/image/{}",
        "/pps/photo/{}",
        "/newsletter/newsletter-image/{}",
    ],
)
async def test_every_kind_of_path_and_both_forms_of_tokens(path: str) -> None:
    token = file_token(hashlib.sha256(BODY).digest())
    async with guest() as one:
        for in_path in (token, token.rstrip("=")):
            for in_query in (token, token.rstrip("=")):
                answer = await one.upload(path=path.format(in_path), token=in_query)
                assert answer.status_code == 200
        (record,) = one.sandbox.core.media.records()
        assert record.kind == path.split("/")[2]


async def test_uploads_that_are_refused() -> None:
    other = file_token(bytes(32))
    async with guest(settings=Settings(media_max_bytes=300_000)) as one:
        refused = {
            401: [{"auth": "guessed"}, {"auth": ""}, {"auth": "guessed", "token": "junk"}],
            400: [{"token": other}, {"name": other}, {"name": "junk"}, {"token": ""}],
            415: [{"name": other, "token": other}],
        }
        for status, changes in refused.items():
            for change in changes:
                answer = await one.upload(**change)
                assert answer.status_code == status
                assert answer.json()["error"]
        assert (await one.upload(**{f"x{number}": "1" for number in range(200)})).status_code == 401
        assert (await one.upload(bytes(300_001))).status_code == 413
        assert one.sandbox.core.media.records() == []
        assert (await one.upload()).status_code == 200


async def test_a_body_of_unknown_length_is_counted() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(BODY), 10_000):
            yield BODY[at : at + 10_000]

    async with guest() as one:
        assert (await one.upload(chunks())).status_code == 200
    async with guest(settings=Settings(media_max_bytes=100_000)) as one:
        assert (await one.upload(chunks())).status_code == 413


async def test_credentials_run_out_and_can_be_forgotten() -> None:
    async with guest(settings=Settings(media_auth_ttl_s=0)) as one:
        assert (await one.upload()).status_code == 401
    async with guest() as one:
        await one.http.post("/admin/media/forget-credentials")
        assert (await one.upload()).status_code == 401
        one.auth = one.credential()
        assert (await one.upload()).status_code == 200


async def test_clients_that_wait_for_permission(nursery: trio.Nursery) -> None:
    token = file_token(hashlib.sha256(BODY).digest())
    async with guest() as one:
        for auth, first in ((one.auth, b"HTTP/1.1 100 "), ("guessed", b"HTTP/1.1 401 ")):
            stream = await trio.open_tcp_stream("127.0.0.1", one.sandbox.port)
            head = f"POST /mms/image/{token}?auth={auth}&token={token} HTTP/1.1\r\nHost: x\r\n"
            head += f"Content-Length: {len(BODY)}\r\nExpect: 100-continue\r\n\r\n"
            await stream.send_all(head.encode())
            assert (await stream.receive_some()).startswith(first)
            if auth == one.auth:
                await stream.send_all(BODY)
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
            await stream.aclose()


async def test_resume_checks() -> None:
    async with guest() as one:
        token = file_token(hashlib.sha256(BODY).digest())
        check = {"name": token, "token": token, "resume": "1"}
        assert (await one.upload(b"", **check)).status_code == 404
        place = (await one.upload()).json()
        assert (await one.upload(b"", **check)).json() == {"resume": "complete", **place}


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-99", (0, 100)),
        ("bytes=100-", (100, 256_000)),
        ("bytes=-100", (255_900, 256_000)),
        ("bytes=255999-999999", (255_999, 256_000)),
        ("bytes=-999999", None),
        ("bytes=0-", None),
        ("bytes=5-1", None),
        ("bytes=-", None),
        ("bytes=1-2,5-6", None),
        ("lines=1-2", None),
    ],
)
async def test_ranges(header: str, part: tuple[int, int] | None) -> None:
    async with guest() as one:
        got = await one.http.get(await one.path(), headers={"Range": header})
        start, end = part or (0, len(BODY))
        assert got.content == BODY[start:end]
        assert got.status_code == (200 if part is None else 206)
        if part is not None:
            assert got.headers["content-range"] == f"bytes {start}-{end - 1}/{len(BODY)}"


@pytest.mark.parametrize("header", ["bytes=256000-", "bytes=999999-1000000", "bytes=-0"])
async def test_ranges_behind_the_end(header: str) -> None:
    async with guest() as one:
        got = await one.http.get(await one.path(), headers={"Range": header})
        assert (got.status_code, got.headers["content-range"]) == (416, "bytes */256000")


def test_ranges_of_nothing() -> None:
    assert byte_range(None, 0) == byte_range("bytes=5-1", 0) == (0, 0)


async def test_deleting() -> None:
    async with guest() as one:
        path = await one.path()
        token = file_token(hashlib.sha256(BODY).digest()).rstrip("=")
        for _ in range(2):
            answer = await one.http.delete(f"/mms/md-msg-hist/{token}?token={token}&auth={one.auth}")
            assert answer.status_code == 200
        assert (await one.http.get(path)).status_code == 404
        assert (await one.http.delete("/mms/md-msg-hist/junk")).status_code == 200
        assert (await one.http.put(path)).status_code == 405


async def test_files_expire_and_can_be_uploaded_again() -> None:
    async with guest() as one:
        path = await one.path()
        await one.path(b"another")
        token = file_token(hashlib.sha256(BODY).digest())
        assert (await one.http.post("/admin/media/expire", json={"token": token})).json() == {"expired": 1}
        got = await one.http.get(path)
        assert (got.status_code, got.text) == (403, "URL signature expired")
        listed = {file["token"]: file for file in (await one.http.get("/admin/media")).json()}
        assert len(listed) == 2
        assert listed[token]["expires"] <= one.sandbox.core.world.now_s
        assert await one.path() == path
        assert (await one.http.get(path)).status_code == 200
        assert (await one.http.post("/admin/media/expire")).json() == {"expired": 2}
        assert (await one.http.post("/admin/media/expire", json={"token": "x"})).status_code == 400
    async with guest(settings=Settings(media_days=0)) as one:
        assert (await one.http.get(await one.path())).status_code == 403


async def test_files_outlive_the_server(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with guest(state=state) as one:
        path = await one.path()
        blob = one.sandbox.core.media.seal("md-app-state", b"made here")
    (stored,) = (state / "media").iterdir()
    assert stored.stat().st_mode & 0o777 == 0o600
    (state / "media" / "7.part").write_bytes(b"left by a killed server")
    async with guest(state=state) as one:
        assert (await one.http.get(path)).content == BODY
        assert len((await one.http.get(blob.record.direct_path)).content) == blob.record.size
        assert list((state / "media").iterdir()) == [stored]
        stored.unlink()
        assert (await one.http.get(path)).status_code == 404


async def test_an_upload_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async with guest(state=tmp_path) as one:
        token = file_token(hashlib.sha256(BODY).digest())
        stream = await trio.open_tcp_stream("127.0.0.1", one.sandbox.port)
        head = f"POST /mms/image/{token}?auth={one.auth}&token={token} HTTP/1.1\r\nHost: x\r\n"
        head += f"Content-Length: {len(BODY)}\r\n\r\n"
        await stream.send_all(head.encode() + BODY[:1000])
        directory = tmp_path / "media"
        await until(lambda: directory.exists() and len(os.listdir(directory)) == 1)
        await stream.aclose()
        await until(lambda: not os.listdir(directory))
        assert one.sandbox.core.media.records() == []


async def test_ten_megabytes_on_one_connection() -> None:
    async with guest() as one:
        body = os.urandom(10 * 1024 * 1024)
        path = await one.path(body)
        for _ in range(2):
            assert (await one.http.get(path)).content == body


class TestFaults:
    async def test_statuses(self) -> None:
        async with guest() as one:
            path = await one.path()
            one.sandbox.fault("media-download", code=503, backoffS=7)
            got = await one.http.get(path)
            assert (got.status_code, got.headers["retry-after"]) == (503, "7")
            one.sandbox.fault("media-download", code=404, count=2)
            assert [(await one.http.get(path)).status_code for _ in range(3)] == [404, 404, 200]
            one.sandbox.fault("media-upload", code=500)
            assert [(await one.upload()).status_code for _ in range(2)] == [500, 200]

    async def test_wrong_bodies(self) -> None:
        async with guest() as one:
            path = await one.path()
            one.sandbox.fault("media-download", mode="damaged")
            damaged = (await one.http.get(path)).content
            assert len(damaged) == len(BODY)
            assert damaged != BODY
            for details in ({"mode": "truncated"}, {"mode": "huge"}, {"never": True}):
                one.sandbox.fault("media-download", **details)
                with pytest.raises(httpx.TransportError):
                    await one.http.get(path)
            one.sandbox.fault("media-download", mode="slow", delayMs=1)
            assert (await one.http.get(path)).content == BODY

    async def test_elsewhere_and_too_late(self) -> None:
        async with guest() as one:
            path = await one.path()
            one.sandbox.fault("media-download", mode="redirect")
            got = await one.http.get(path)
            assert (got.status_code, got.headers["location"][:8]) == (302, "https://")
            one.sandbox.fault("media-download", mode="expired")
            assert (await one.http.get(path)).status_code == 403
            one.sandbox.fault("media-upload", mode="redirect")
            assert (await one.upload()).status_code == 307
            one.sandbox.fault("media-upload", mode="slow", delayMs=1)
            assert (await one.upload()).status_code == 200
            one.sandbox.fault("media-upload", never=True)
            with pytest.raises(httpx.TransportError):
                await one.upload()

    @pytest.mark.parametrize(
        "details",
        [
            {},
            {"mode": "garbage"},
            {"code": 99},
            {"code": 100},
            {"code": 600},
            {"code": 500, "target": "15550000001"},
        ],
    )
    async def test_nonsense(self, details: dict[str, Any]) -> None:
        async with run_sandbox(port=None) as sandbox:
            for kind in ("media-download", "media-upload"):
                with pytest.raises(SandboxError):
                    sandbox.fault(kind, **details)
            with pytest.raises(SandboxError):
                sandbox.fault("media-upload", mode="huge")


def test_blobs_of_the_server_itself() -> None:
    core, _ = new_core()
    media = core.media
    one, two = (media.seal("md-app-state", b"the same content") for _ in range(2))
    assert one.media_key != two.media_key
    assert one.record.digest != two.record.digest
    assert parse_token(str(one.record.view()["token"])) == one.record.digest
    assert one.media_key.hex() not in repr(one)
    assert repr(one.media_key)[2:12] not in repr(one)
