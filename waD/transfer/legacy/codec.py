"""Items of the auth state and rows of Baileys 7, exactly (chapter 08 §2, §5, §6.5).

Where a row of Baileys loses something, the document stands beside it, in a row of the type `x-wad-<kind>`:
`{"doc":…,"of":…}`. `of` is the SHA-256 of the row that was written with it, and the document counts only as long as
that row is still the same: what a Node service changed since then wins. Items that Baileys does not know stand in
rows of that type alone, as they are.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from waD.store.canonical import canonicalise
from waD.store.codec import LegacyKey
from waD.transfer.baileys.names import CREDS
from waD.transfer.legacy import creds_form
from waD.transfer.legacy.account_forms import ACCOUNT_FORMS
from waD.transfer.legacy.form import UNUSABLE, Form, Other, Rows
from waD.transfer.legacy.signal_forms import SIGNAL_FORMS

EXTRA: Final = "x-wad-"
CREDS_ROW: Final[LegacyKey] = (CREDS, "")
CREDS_EXTRA: Final[LegacyKey] = (f"{EXTRA}{CREDS}", "")

_FORMS: Final[Mapping[str, Form]] = {form.kind: form for form in (*SIGNAL_FORMS, *ACCOUNT_FORMS)}
_BY_TYPE: Final[dict[str, list[Form]]] = {}
for _form in _FORMS.values():
    _BY_TYPE.setdefault(_form.type, []).append(_form)

_log = logging.getLogger(__name__)


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A document beside its row."""

    doc: msgspec.Raw
    of: str | None


_decode_kept: Final = msgspec.json.Decoder(_Kept).decode


class LegacyCodec:
    """Translates between the items of this program and the rows of a Node service; see `waD.store.codec.Codec`."""

    def names(self, kind: str, key: str) -> Sequence[LegacyKey]:
        """All rows that an item may be kept in; a session of Baileys leaves the own identity to the credentials."""
        form = _FORMS.get(kind)
        row = _row_of(form, key)
        extra = (EXTRA + kind, key)
        if form is None or row is None:
            return (extra,)
        return (row, extra, CREDS_ROW) if form.needs_creds else (row, extra)

    def item_rows(self, kind: str, key: str, document: bytes | None) -> Mapping[LegacyKey, bytes | None]:
        """The rows of an item; None for those there must not be."""
        form, extra = _FORMS.get(kind), (EXTRA + kind, key)
        row = _row_of(form, key)
        if form is None:
            return {extra: document}
        if row is None:
            return {extra: None if document is None else _keep(document, None)}
        if document is None:
            return {row: None, extra: None}
        value = _written(form, document)
        exact = value is not None and not form.loses(document) and _read(form, value, Other()) == document
        return {row: value, extra: None if exact else _keep(document, value)}

    def item(self, kind: str, key: str, rows: Rows) -> bytes | None:
        """The item kept in rows; None when there is none, or none that anybody can read."""
        form, extra = _FORMS.get(kind), rows.get((EXTRA + kind, key))
        if form is None:
            return extra
        row = _row_of(form, key)
        value = None if row is None else rows.get(row)
        kept = _kept(extra)
        if kept is not None and _is_of(kept, value):
            return bytes(kept.doc)
        if value is None:
            return None
        other = Other(rows.get(CREDS_ROW), None if kept is None else bytes(kept.doc))
        document = _read(form, value, other)
        if document is None and form.key_of(row[1] if row else "") is not None:
            _log.warning("a key-value row of the type %s cannot be read and was left out", form.type)
        return document

    def creds_names(self) -> Sequence[LegacyKey]:
        """The rows of the credentials."""
        return (CREDS_ROW, CREDS_EXTRA)

    def creds_rows(self, document: bytes) -> Mapping[LegacyKey, bytes | None]:
        """The rows of the credentials.

        Raises:
            CredentialsError: the document is damaged.
        """
        value = creds_form.write(document)
        return {CREDS_ROW: value, CREDS_EXTRA: _keep(document, value)}

    def creds(self, rows: Rows) -> bytes | None:
        """The credentials kept in rows; None when there are none.

        Raises:
            StoreDamaged: there are some that cannot be used, which is never the same as none.
        """
        value, kept = rows.get(CREDS_ROW), _kept(rows.get(CREDS_EXTRA))
        if value is None:
            return None
        if kept is not None and _is_of(kept, value):
            return bytes(kept.doc)
        return creds_form.read(value, None if kept is None else bytes(kept.doc))

    def types(self, kind: str) -> Sequence[str]:
        """Types of rows in which items of a kind are kept."""
        form = _FORMS.get(kind)
        return (EXTRA + kind,) if form is None else (form.type, EXTRA + kind)

    def native(self, legacy: LegacyKey) -> tuple[str, str] | None:
        """Kind and key of the item that a row belongs to."""
        kind, text = legacy
        if kind.startswith(EXTRA):
            own = kind.removeprefix(EXTRA)
            return None if own in ("", CREDS) else (own, text)
        for form in _BY_TYPE.get(kind, ()):
            key = _key_of(form, text)
            if key is not None:
                return form.kind, key
        return None


def _row_of(form: Form | None, key: str) -> LegacyKey | None:
    """The row of Baileys that an item belongs into; None when it has no place there."""
    try:
        return None if form is None else (form.type, form.id_of(key))
    except UNUSABLE:
        return None


def _key_of(form: Form, text: str) -> str | None:
    """Only of rows that the item would be written to: another spelling would be a second truth."""
    try:
        key = form.key_of(text)
        return key if key is not None and form.id_of(key) == text else None
    except UNUSABLE:
        return None


def _written(form: Form, document: bytes) -> bytes | None:
    try:
        return form.write(document)
    except UNUSABLE:
        return None


def _read(form: Form, value: bytes, other: Other) -> bytes | None:
    try:
        return form.read(value, other)
    except UNUSABLE:
        return None


def _digest(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(hashlib.sha256(value).digest()).decode()


def _is_of(kept: _Kept, value: bytes | None) -> bool:
    """Whether a row still says what it said; how it spells that may have changed."""
    if kept.of == _digest(value):
        return True
    try:
        return value is not None and kept.of == _digest(canonicalise(value))
    except UNUSABLE:
        return False


def _keep(document: bytes, value: bytes | None) -> bytes:
    """Canonical, since both parts are."""
    digest = _digest(value)
    return b'{"doc":%b,"of":%b}' % (document, b"null" if digest is None else b'"%b"' % digest.encode())


def _kept(value: bytes | None) -> _Kept | None:
    try:
        return None if value is None else _decode_kept(value)
    except UNUSABLE:
        return None
