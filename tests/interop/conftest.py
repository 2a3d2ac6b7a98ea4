"""Fixtures: Node, Baileys from npm, and factories for clients.

Policy of these tests: loopback only, any free port, conditions instead of sleeping, an end to every wait.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.interop.baileys_client import BaileysClient, start_client
from tests.interop.npm import NodeTools, Unavailable, find_node, install_baileys
from waD.sandbox import Sandbox

Baileys = Callable[..., AbstractAsyncContextManager[BaileysClient]]


@pytest.fixture(scope="session")
def node_tools() -> NodeTools:
    """The node program and the command that is npm."""
    try:
        return find_node()
    except Unavailable as missing:
        pytest.fail(str(missing))


@pytest.fixture(scope="session")
def baileys_modules(node_tools: NodeTools) -> Path:
    """Directory with Baileys installed; kept between runs."""
    try:
        return install_baileys()
    except Unavailable as missing:
        pytest.fail(str(missing))


@pytest.fixture(scope="session")
def baileys(node_tools: NodeTools, baileys_modules: Path) -> Baileys:
    """Factory: `async with baileys(sandbox, auth_dir) as client` connects a Baileys client."""

    @asynccontextmanager
    async def factory(
        sandbox: Sandbox,
        auth_dir: Path,
        *,
        connect: bool = True,
        log: str | None = None,
        **options: Any,
    ) -> AsyncIterator[BaileysClient]:
        environment = {**os.environ, "NO_COLOR": "1"}
        if log is not None:
            environment["BAILEYS_LOG"] = log
        if sandbox.ca_file is not None:
            environment["NODE_EXTRA_CA_CERTS"] = str(sandbox.ca_file)
        async with start_client(node_tools.node, baileys_modules, environment) as client:
            if connect:
                await connect_client(client, sandbox, auth_dir, **options)
            yield client

    return factory


async def connect_client(client: BaileysClient, sandbox: Sandbox, auth_dir: Path, **options: Any) -> None:
    """Tell a client to connect to a sandbox with the credentials in a directory."""
    await client.command(
        "connect", url=sandbox.url, authDir=str(auth_dir), rootKey=sandbox.root_key.hex(), **options
    )


async def pair(client: BaileysClient, sandbox: Sandbox, number: str) -> None:
    """Scan the client's code with a phone and wait until it is logged in and drained."""
    phone = sandbox.phone(number)
    qr = await client.wait_for("qr")
    await phone.scan(qr["qr"])
    await client.wait_for("open")
    await client.wait_for("offline")


if sys.platform == "win32":  # pragma: no cover
    pytest.skip("Unix only", allow_module_level=True)
