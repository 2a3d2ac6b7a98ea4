"""The HTTP library: loaded late, quiet, and unable to weaken what the endpoint says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trio

from waD.link.endpoint import Endpoint
from waD.messaging.media.errors import MediaError
from waD.messaging.media.https import Https


def test_the_library_is_not_loaded_before_the_first_file() -> None:
    code = (
        "import sys, waD.daemon, waD.messaging.media.downloads, waD.messaging.media.https;"
        "print(sorted({'httpx', 'httpcore', 'anyio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_authorities_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for name in ("empty.pem", "missing.pem"):
        with pytest.raises(MediaError, match=name) as caught:
            async with Https(Endpoint(ca_file=tmp_path / name))():
                pass
        assert (caught.value.code, caught.value.permanent) == ("tls", False)


async def test_nobody_listens() -> None:
    sockets = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = sockets[0].socket.getsockname()[1]
    await sockets[0].aclose()
    async with Https(Endpoint())() as client:
        with pytest.raises(MediaError) as caught:
            async with client.get(f"https://127.0.0.1:{port}/x"):
                pass
    assert caught.value.code == "network"


def test_the_chat_connection_keeps_its_own_tls_settings() -> None:
    endpoint = Endpoint()
    assert endpoint.ssl_context() is endpoint.ssl_context()
    assert endpoint.ssl_context("media") is endpoint.ssl_context("media")
    assert endpoint.ssl_context("media") is not endpoint.ssl_context()
