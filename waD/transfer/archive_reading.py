"""Reading a `wad-backup/1` archive (chapter 08 §7.2): all of it is checked before anything of it is given out.

The archive is decrypted and unpacked into a nameless temporary file of mode 0600, so that what was checked is what is
read afterwards. One member, at the most, is in memory.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import msgspec

from waD.store import checksum
from waD.store.model import SecretRow, SessionRow
from waD.transfer import archive, sealing, tar
from waD.transfer.archive import ArchiveError, Manifest, ManifestSession, SessionDocument, StoredItem
from waD.transfer.documents import canonical_of, decoded
from waD.transfer.sealing import Writable
from waD.transfer.state import Report
from waD.transfer.streams import MAX_SEALED, HashingReader, LimitedWriter
from waD.transfer.tar import Member

T = TypeVar("T")

MAX_SUMS: Final = archive.MAX_MEMBERS * 300
_CHUNK: Final = 64 * 1024
_SUM: Final = re.compile(r"[0-9a-f]{64}  \S{1,200}", re.ASCII)
_PART: Final = re.compile(r"history/(?P<table>[A-Za-z0-9][A-Za-z0-9._-]{0,79})-[0-9]{4,6}\.jsonl", re.ASCII)
_ITEMS: Final = re.compile(r"items/(?P<kind>[A-Za-z0-9][A-Za-z0-9._-]{0,79})\.jsonl", re.ASCII)


class _Line(msgspec.Struct):
    """An item as archived."""

    id: str
    version: int
    value: msgspec.Raw


class _Kin(msgspec.Struct):
    """As much of a manifest as tells whether this version can read it."""

    format: str
    version: int


@dataclass(frozen=True, slots=True)
class ArchivedSession:
    """One session of an archive, with the counts and the checksum that the manifest promises.

    Attributes:
        listed: what the manifest says of it.
        row: the session's row, without a lease.
        creds: credentials document, canonical JSON.
        creds_version: version that changed them last.
        items: by kind and key.
        phase_log: newest rows of the phase log.
    """

    listed: ManifestSession
    row: SessionRow
    creds: bytes
    creds_version: int
    items: dict[tuple[str, str], StoredItem]
    phase_log: list[dict[str, Any]]

    def __repr__(self) -> str:
        return f"ArchivedSession({self.listed.id}, version={self.listed.version}, {len(self.items)} items)"


class Archive:
    """An archive whose members are all there and have their hashes.

    Attributes:
        manifest: its first member.
        sha256: of the file as it was read, in hex; names the archive.
        encrypted: whether it was.
    """

    def __init__(
        self, file: BinaryIO, found: dict[str, Member], manifest: Manifest, sha256: str, *, encrypted: bool
    ) -> None:
        self._file = file
        self._members = found
        self.manifest = manifest
        self.sha256 = sha256
        self.encrypted = encrypted

    def __repr__(self) -> str:
        return f"Archive({len(self.manifest.sessions)} sessions, {len(self._members)} members)"

    def copy_to(self, out: Writable) -> None:
        """Write the archive out, decrypted and unpacked: with every key in the clear."""
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK):
            out.write(chunk)
        out.flush()

    def session(self, session_id: str) -> ArchivedSession:
        """Read one session.

        Raises:
            ArchiveError: it is not in the archive, or is not what the manifest promises.
        """
        listed = next((one for one in self.manifest.sessions if one.id == session_id), None)
        if listed is None:
            raise ArchiveError("session_missing", "the archive has no such session", session_id[:64])
        place = f"sessions/{session_id}"
        document = decoded(
            self._whole(f"{place}/{archive.SESSION}"), SessionDocument, f"{place}/{archive.SESSION}"
        )
        creds = canonical_of(self._whole(f"{place}/{archive.CREDS}"), f"{place}/{archive.CREDS}")
        items = {(item.kind, item.key): item for item in self._items(place)}
        found = ArchivedSession(
            listed, _row(document, place), creds, document.creds_version, items, document.phase_log
        )
        _check_promises(found, place)
        return found

    def secrets(self, session_id: str) -> Iterator[SecretRow]:
        """Secrets of messages; raises ArchiveError for what is none."""
        return self._rows(f"sessions/{session_id}/{archive.SECRETS}", SecretRow)

    def outbox(self, session_id: str, kind: type[T]) -> Iterator[T]:
        """Rows of the outbox, if it is in; raises ArchiveError."""
        return self._rows(f"sessions/{session_id}/{archive.OUTBOX}", kind)

    def tables(self, session_id: str) -> list[str]:
        """Tables of the history that are in."""
        place = f"sessions/{session_id}/"
        matches = (_PART.fullmatch(name.removeprefix(place)) for name in self._of(place))
        return sorted({match["table"] for match in matches if match is not None})

    def history(self, session_id: str, table: str, kind: type[T]) -> Iterator[T]:
        """Rows of a table of the history; raises ArchiveError."""
        place = f"sessions/{session_id}/"
        for name in sorted(self._of(place)):
            match = _PART.fullmatch(name.removeprefix(place))
            if match is not None and match["table"] == table:
                yield from self._rows(name, kind)

    def check_rows(self, session_id: str) -> dict[str, int]:
        """Read the rows of secrets, outbox and history; how many there are by member.

        Raises:
            ArchiveError: one is none, or a secret is outside of its limits.
        """
        place = f"sessions/{session_id}/"
        others = [name for name in self._of(place) if name.endswith(".jsonl")]
        return {
            name.removeprefix(place): sum(
                1 for _ in self._rows(name, SecretRow if name == f"{place}{archive.SECRETS}" else dict)
            )
            for name in others
            if _ITEMS.fullmatch(name.removeprefix(place)) is None
        }

    def _of(self, place: str) -> Iterator[str]:
        return (name for name in self._members if name.startswith(place) and is_known(name))

    def _whole(self, name: str) -> bytes:
        member = self._members.get(name)
        if member is None:
            raise ArchiveError("member_missing", "the archive does not have what its manifest promises", name)
        if member.size > archive.MAX_LINE:
            raise ArchiveError("line_too_long", f"{member.size} bytes in one document", name)
        self._file.seek(member.start)
        return self._file.read(member.size)

    def _items(self, place: str) -> Iterator[StoredItem]:
        for name in self._of(f"{place}/"):
            match = _ITEMS.fullmatch(name.removeprefix(f"{place}/"))
            if match is None:
                continue
            before: str | None = None
            for line in self._lines(name):
                item = _item(match["kind"], line, name)
                if before is not None and item.key <= before:
                    raise ArchiveError(
                        "items_unordered", "its lines are out of order, or one is twice there", name
                    )
                before = item.key
                yield item

    def _rows(self, name: str, kind: type[T]) -> Iterator[T]:
        if name in self._members:
            for line in self._lines(name):
                yield decoded(line, kind, name)

    def _lines(self, name: str) -> Iterator[bytes]:
        member = self._members[name]
        position, end = member.start, member.start + member.size
        while position < end:
            self._file.seek(position)
            line = self._file.readline(min(archive.MAX_LINE + 1, end - position))
            position += len(line)
            if not line.endswith(b"\n"):
                code = "line_too_long" if len(line) > archive.MAX_LINE else "json_invalid"
                raise ArchiveError(code, "a line has no end, or a late one", name)
            yield line[:-1]


@contextmanager
def open_archive(
    source: BinaryIO, spool_dir: Path, key: sealing.Key | None, report: Report
) -> Iterator[Archive]:
    """Decrypt, unpack and check an archive: level 0 of chapter 08 §7.6.

    Args:
        source: the archive, from its beginning.
        spool_dir: where the nameless temporary files are; room for the unpacked archive is needed.
        key: opens it; None for one that is not encrypted.
        report: takes warnings, such as of members that this version does not know.

    Raises:
        ArchiveError: nothing is to be taken from it.
        OSError: from a file.
    """
    hashing = HashingReader(source)
    encrypted = sealing.is_sealed(hashing.head())
    with tempfile.TemporaryFile(dir=spool_dir) as plain, tempfile.TemporaryFile(dir=spool_dir) as unpacked:
        if encrypted:
            _decrypt(hashing, plain, key)
        else:
            report.warn("archive_not_encrypted", detail="whoever reads the file has the account")
            limited = LimitedWriter(plain, MAX_SEALED)
            while chunk := hashing.read():
                limited.write(chunk)
        plain.seek(0)
        file = plain
        if plain.read(len(tar.GZIP_MAGIC)) == tar.GZIP_MAGIC:
            plain.seek(0)
            tar.unzip(plain, unpacked)
            plain.truncate(0)
            file = unpacked
        found, manifest = _checked(file, report)
        yield Archive(file, found, manifest, hashing.hexdigest(), encrypted=encrypted)


def is_known(name: str) -> bool:
    """Whether a member belongs to this version of the format."""
    if name in (archive.MANIFEST, archive.SUMS):
        return True
    top, _, rest = name.partition("/")
    session_id, _, inner = rest.partition("/")
    if top != "sessions" or not archive.is_session_id(session_id):
        return False
    plain = (archive.SESSION, archive.CREDS, archive.SECRETS, archive.OUTBOX)
    return inner in plain or bool(_ITEMS.fullmatch(inner) or _PART.fullmatch(inner))


def _decrypt(source: HashingReader, out: BinaryIO, key: sealing.Key | None) -> None:
    if key is None:
        raise ArchiveError("key_needed", "it is encrypted: give an identity file or a passphrase file")
    limited = LimitedWriter(out, archive.MAX_TOTAL)
    key.decrypt(source, limited)


def _checked(file: BinaryIO, report: Report) -> tuple[dict[str, Member], Manifest]:
    """Check names, sizes, hashes, the order of first and last, and what the manifest lists."""
    found = {member.name: member for member in tar.members(file)}
    names = [*found]
    if not names or names[0] != archive.MANIFEST:
        raise ArchiveError("archive_foreign", f"its first member is not {archive.MANIFEST}: no waD backup")
    manifest = _manifest(_read(file, found[archive.MANIFEST], archive.MAX_MANIFEST))
    if names[-1] != archive.SUMS:
        raise ArchiveError("archive_truncated", f"its last member is not {archive.SUMS}")
    _check_sums(_read(file, found[archive.SUMS], MAX_SUMS), found)
    listed = {one.id for one in manifest.sessions}
    if len(listed) != len(manifest.sessions):
        raise ArchiveError("manifest_invalid", "a session is listed twice", archive.MANIFEST)
    for session_id in listed:
        _check_session(session_id, found)
    for name in names:
        if not is_known(name) or (name.startswith("sessions/") and name.split("/")[1] not in listed):
            report.warn("unknown_member", name, "ignored: the manifest or this version does not know it")
    return found, manifest


def _check_session(session_id: str, found: dict[str, Member]) -> None:
    if not archive.is_session_id(session_id):
        raise ArchiveError("manifest_invalid", "a session's id is not a UUID in lower case", archive.MANIFEST)
    for name in (archive.SESSION, archive.CREDS, archive.SECRETS):
        if f"sessions/{session_id}/{name}" not in found:
            raise ArchiveError(
                "member_missing", "the manifest lists its session", f"sessions/{session_id}/{name}"
            )


def _read(file: BinaryIO, member: Member, longest: int) -> bytes:
    if member.size > longest:
        raise ArchiveError("archive_too_large", f"{member.size} bytes", member.name)
    file.seek(member.start)
    return file.read(member.size)


def _manifest(data: bytes) -> Manifest:
    kin = decoded(data, _Kin, archive.MANIFEST)
    if kin.format != archive.FORMAT:
        raise ArchiveError("archive_foreign", "its manifest is of another program", archive.MANIFEST)
    if kin.version > archive.FORMAT_VERSION:
        raise ArchiveError(
            "archive_too_new",
            f"format version {kin.version} is newer than this program knows ({archive.FORMAT_VERSION}): upgrade waD",
            archive.MANIFEST,
        )
    manifest = decoded(data, Manifest, archive.MANIFEST)
    try:
        made = manifest.created_ms
    except (ValueError, OverflowError):
        made = 0
    if manifest.version != archive.FORMAT_VERSION or made <= 0 or not manifest.sessions:
        raise ArchiveError("manifest_invalid", "no sessions, no proper time or version", archive.MANIFEST)
    return manifest


def _check_sums(text: bytes, found: dict[str, Member]) -> None:
    lines = text.decode("ascii", "replace").splitlines()
    sums: dict[str, str] = {}
    for line in lines:
        if _SUM.fullmatch(line) is None:
            raise ArchiveError("archive_damaged", "a line that is no hash and name", archive.SUMS)
        sums[line[66:]] = line[:64]
    for name, member in found.items():
        if name == archive.SUMS:
            continue
        if name not in sums:
            raise ArchiveError("member_unlisted", f"{archive.SUMS} does not have it", name)
        if sums[name] != member.digest:
            raise ArchiveError("member_hash_mismatch", f"it is not what {archive.SUMS} says", name)
    for name in sums:
        if name not in found:
            raise ArchiveError("member_missing", f"{archive.SUMS} has it, the archive has not", name)


def _row(document: SessionDocument, place: str) -> SessionRow:
    try:
        return msgspec.convert(archive.row_columns(document.row), SessionRow)
    except msgspec.ValidationError as error:
        raise ArchiveError("session_invalid", str(error), f"{place}/{archive.SESSION}") from None


def _check_promises(found: ArchivedSession, place: str) -> None:
    """Counts, versions and checksum of the manifest (level 1)."""
    listed, row = found.listed, found.row
    facts = (listed.id, listed.name, listed.epoch, listed.version, listed.me_pn, listed.me_lid)
    if facts != (row.id, row.name, row.auth_epoch, row.auth_version, row.me_pn, row.me_lid):
        raise ArchiveError("session_mismatch", f"{archive.SESSION} is not of the session listed", place)
    counts: dict[str, int] = {}
    for kind, _ in found.items:
        counts[kind] = counts.get(kind, 0) + 1
    for kind in sorted(counts.keys() | listed.item_counts.keys()):
        if counts.get(kind, 0) != listed.item_counts.get(kind, 0):
            raise ArchiveError(
                "item_count_mismatch",
                f"{counts.get(kind, 0)} items, {listed.item_counts.get(kind, 0)} in the manifest",
                f"{place}/items/{kind}.jsonl",
            )
    if max((item.version for item in found.items.values()), default=0) > listed.version:
        raise ArchiveError("version_mismatch", "an item is newer than the state it belongs to", place)
    if _sum(found).hex() != listed.checksum:
        raise ArchiveError("checksum_mismatch", "its documents are not what the manifest sums up", place)


def _sum(found: ArchivedSession) -> bytes:
    parts = [checksum.creds_checksum(found.creds_version, found.creds)]
    parts += [
        checksum.item_checksum(item.kind, item.key, item.version, item.document)
        for item in found.items.values()
    ]
    return checksum.total(parts)


def _item(kind: str, line: bytes, name: str) -> StoredItem:
    item = decoded(line, _Line, name)
    if not 0 <= item.version < 1 << 63:
        raise ArchiveError("json_invalid", "a version that no state has", name)
    return StoredItem(kind, item.id, item.version, canonical_of(bytes(item.value), name))
