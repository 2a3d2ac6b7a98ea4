"""Handing a backup file to whoever has the store: decrypted and checked in a process of its own on the way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wactl import archives, child
from wactl.client import Client
from wactl.failure import Failure, usage
from wactl.text import clean
from waD.control import types as t


def secret_words(
    identity_file: Path | None, passphrase_file: Path | None, spool_dir: Path | None
) -> list[str]:
    """Arguments of the programs of `waD.transfer` that say where the secrets are; raises Failure."""
    if identity_file is not None and passphrase_file is not None:
        raise usage("--identity-file and --passphrase-file exclude each other")
    files = {
        "--identity-file": identity_file,
        "--passphrase-file": passphrase_file,
        "--spool-dir": spool_dir,
    }
    return [f"{name}={path}" for name, path in files.items() if path is not None]


def hand_over(client: Client, file: Path, secrets: Sequence[str]) -> str:
    """Decrypt a backup file and upload it; returns the upload's id.

    Nothing comes out of the process before it has checked all of the file.

    Raises:
        Failure: 1 when it cannot be opened, 6 when it is damaged; or the daemon refuses it.
    """
    with child.reading("-m", "waD.transfer", "unseal", *secrets, "--", str(file)) as (pipe, done):
        file_id = archives.upload(client, pipe)
        ended = done()
    if ended.status == t.EXIT_OK and file_id is not None:
        return file_id
    why = clean(ended.errors[-1].removeprefix("error: ")) if ended.errors else f"exit status {ended.status}"
    damaged = ended.status == t.EXIT_DAMAGED
    status = t.EXIT_DAMAGED if damaged else t.EXIT_REFUSED
    raise Failure("damaged" if damaged else "refused", f"{file}: {why}; nothing was changed", status)
