"""An imported state as the archive of a planned move: whoever restores it goes on exactly, once (chapter 08 §7.4).

That is right for an import since its source has been given up: the old program is stopped and must stay so.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import BinaryIO

import msgspec

from waD.store.model import SessionRow
from waD.transfer.archive import Manifest, SessionContent, StoredItem
from waD.transfer.archive_writing import About, write_archive
from waD.transfer.backup import SCHEMA_VERSION
from waD.transfer.reviving import columns
from waD.transfer.state import AuthState


def pack(out: BinaryIO, state: AuthState, name: str, program: str, now_ms: int, spool_dir: Path) -> Manifest:
    """Write an archive, in the clear.

    Args:
        out: where to; a pipe, or what encrypts it.
        state: sound at level 2.
        name: of the session.
        program: name and version, for the manifest.
        now_ms: Unix milliseconds.
        spool_dir: for a nameless temporary file.

    Raises:
        ArchiveError, OSError: it was not written.
    """
    row = SessionRow(id=str(uuid.uuid4()), name=name, created_at=now_ms, updated_at=now_ms)
    row = msgspec.structs.replace(row, **columns(state.creds))
    content = SessionContent(
        row=row,
        creds=state.creds.serialize(),
        creds_version=0,
        items=[StoredItem(kind, key, 0, document) for (kind, key), document in sorted(state.items.items())],
        secrets=map(msgspec.to_builtins, state.secrets),
    )
    return write_archive(out, [content], About(now_ms, program, SCHEMA_VERSION, final=True), spool_dir)
