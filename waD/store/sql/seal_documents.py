"""What a seal holds, as a document, plain or encrypted with the key it was sealed under (chapter 08 §6.8)."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import msgspec

from waD.store import checksum
from waD.store.canonical import as_it_is, canonicalise
from waD.store.errors import StoreDamaged
from waD.store.model import SessionRow
from waD.store.sql.auth import State
from waD.store.sql.heads import NO_CREDS

FORMAT: Final = "wad-seal/1"
_OWN_PURPOSE: Final = "seal"


class SealItem(msgspec.Struct):
    """One item of a seal."""

    value: msgspec.Raw
    version: int


class SealDocument(msgspec.Struct):
    """What a seal holds."""

    creds: msgspec.Raw
    epoch: int
    format: str
    items: dict[str, dict[str, SealItem]]
    session: str
    version: int
    creds_version: int = 0

    def __repr__(self) -> str:
        return f"SealDocument({self.epoch}.{self.version})"


class EarlierDocument(msgspec.Struct):
    """What a seal held before documents were JSON; values in base64."""

    format: str
    epoch: int
    version: int
    creds: str | None
    items: list[tuple[str, str, str]]

    def __repr__(self) -> str:
        return f"EarlierDocument({self.epoch}.{self.version})"


class Closed(msgspec.Struct, rename={"form": "$wad"}):
    """An encrypted seal, with the key it needs: by then the session may have another one."""

    form: int
    dek: bytes
    kek: str
    epoch: int
    session: str
    data: bytes


encode: Final = msgspec.json.Encoder(order="sorted").encode
decode: Final = msgspec.json.Decoder(SealDocument).decode
decode_earlier: Final = msgspec.json.Decoder(EarlierDocument).decode
_decode_closed: Final = msgspec.json.Decoder(Closed).decode


def as_closed(data: bytes) -> Closed | None:
    """The envelope of an encrypted seal; None for one in the clear, whatever damaged state it holds."""
    if b'"$wad"' not in data[:1000]:
        return None
    try:
        return _decode_closed(data)
    except ValueError:
        return None


def check_seal_format(form: str, which: str) -> None:
    """Raises StoreDamaged for a seal of a newer program."""
    if form != FORMAT:
        raise StoreDamaged(f"{which} has the unknown format {form[:32]!r}: a newer program made it")


def purpose(epoch: int, version: int) -> str:
    """What binds an encrypted seal to its place."""
    return f"{_OWN_PURPOSE}:{epoch}:{version}"


def _as_document(row: SessionRow, state: State) -> SealDocument:
    items: dict[str, dict[str, SealItem]] = {}
    for (kind, key), (version, value) in sorted(state.items.items()):
        items.setdefault(kind, {})[key] = SealItem(msgspec.Raw(value), version)
    return SealDocument(
        creds=msgspec.Raw(NO_CREDS if state.creds is None else state.creds),
        epoch=row.auth_epoch,
        format=FORMAT,
        items=items,
        session=row.id,
        version=row.auth_version,
        creds_version=state.creds_version,
    )


def sealed_document(row: SessionRow, state: State) -> bytes:
    """The document, in canonical form whatever was stored: otherwise it could never be read again."""
    sealed = encode(_as_document(row, state))
    with suppress(ValueError):
        if canonicalise(sealed) == sealed:
            return sealed
    state.items = {
        (kind, key): (version, as_it_is(kind, key, value))
        for (kind, key), (version, value) in state.items.items()
    }
    state.creds = None if state.creds is None else as_it_is("creds", "", state.creds)
    return encode(_as_document(row, state))


def checksum_of(state: State) -> bytes:
    """The sum over the plain documents, which for a state that is not encrypted is that of its head."""
    creds = NO_CREDS if state.creds is None else state.creds
    parts = [checksum.creds_checksum(state.creds_version, creds)]
    parts += [
        checksum.item_checksum(kind, key, version, value)
        for (kind, key), (version, value) in state.items.items()
    ]
    return checksum.total(parts)
