"""A session that receives without a server: a store of its own for one stanza, the identity function as cipher."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, Final, TypeVar
from unittest import mock

import trio

from tests.vector_runner.nodes import address, optional_address
from waD.e2ee import groups, session
from waD.e2ee.errors import SignalError
from waD.e2ee.groups import SenderKeyRecord
from waD.e2ee.record import SessionRecord
from waD.e2ee.session import Decrypted
from waD.link.credentials import new_credentials
from waD.messaging import decrypting
from waD.messaging.context import Context, MessagingSettings, make_context
from waD.messaging.inbound import Inbound
from waD.store.store import StoreSettings, open_store
from waD.store.unit import Unit
from waD.wire.node import Node

T = TypeVar("T")

NOW_MS: Final = 1_700_000_000_000
UNREADABLE: Final = b"bad"
"""What the vectors' cipher refuses."""


def in_session(me: str, me_lid: str | None, action: Callable[[Context], Awaitable[T]]) -> T:
    """Run something over the empty state of a session with these addresses."""

    async def run() -> T:
        with TemporaryDirectory() as directory:
            async with open_store(StoreSettings(path=Path(directory) / "waD.db")) as store:
                state = await store.attach((await store.create_session("vectors")).id, "vectors")
                creds = new_credentials(os.urandom, NOW_MS)
                unit = state.unit()
                unit.set_creds(creds.change(me_pn=address(me), me_lid=optional_address(me_lid)).serialize())
                await state.commit(unit)
                settings = MessagingSettings()
                return await action(
                    make_context(state, settings=settings, now_ms=lambda: NOW_MS, random=os.urandom)
                )

    return trio.run(run)


def receive(me: str, me_lid: str | None, stanza: Node) -> tuple[Unit, list[tuple[str, ...]]]:
    """Handle a message stanza; what it changes, and which ciphers were asked.

    A call is `("session", type)`, `("skdm", group)` with the group named by the stanza, or `("group",)`.
    """

    async def run(context: Context) -> tuple[Unit, list[tuple[str, ...]]]:
        unit = context.state.unit()
        with _identity_cipher() as calls:
            await Inbound(context).message(stanza, unit)
        return unit, calls

    return in_session(me, me_lid, run)


@contextmanager
def _identity_cipher() -> Iterator[list[tuple[str, ...]]]:
    calls: list[tuple[str, ...]] = []

    def decrypt(record: SessionRecord | None, local: Any, kind: str, data: bytes, *_: Any) -> Decrypted:
        calls.append(("session", kind))
        if data == UNREADABLE:
            raise SignalError("bad_mac", "the vectors' cipher refuses this")
        return Decrypted(
            record or SessionRecord(None), data, None, bytes(32), established=False, promoted=False
        )

    def distribute(record: SenderKeyRecord | None, data: bytes) -> SenderKeyRecord:
        calls.append(("skdm",))
        return SenderKeyRecord(())

    def decrypt_group(
        record: SenderKeyRecord | None, data: bytes, now_ms: int
    ) -> tuple[SenderKeyRecord, bytes]:
        calls.append(("group",))
        if data == UNREADABLE:
            raise SignalError("bad_mac", "the vectors' cipher refuses this")
        return SenderKeyRecord(()), data

    with (
        mock.patch.object(session, "decrypt", decrypt),
        mock.patch.object(decrypting, "parse_prekey_message", return_value=SimpleNamespace(prekey_id=None)),
        mock.patch.object(groups, "process_distribution", distribute),
        mock.patch.object(groups, "replaced_key", return_value=None),
        mock.patch.object(groups, "decrypt", decrypt_group),
    ):
        yield calls
