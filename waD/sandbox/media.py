"""The media host without input and output: credentials, files and where they are found (chapter 05 §1)."""

from __future__ import annotations

import base64
import hashlib
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from waD.e2ee.media import MediaKind, encrypt, file_token
from waD.sandbox.world import World
from waD.wire.node import Node

BUCKETS: Final = 12
AUTH_LENGTH: Final = 24
AUTHS_KEPT: Final = 10_000
DAY_S: Final = 86_400
MEDIA_KEY_LENGTH: Final = 32
SEALED_KEPT: Final = 256
"""Files of this server's own: each snapshot is a new one, because its key is."""
READ_HERE: Final = "md-app-state"
"""Uploads of this kind are read by phones and for snapshots."""
MAX_READ: Final = 64 * 1024 * 1024
JOURNAL_KIND: Final = "media"
_PATH: Final = "/v/t62.7118-24/"


class MediaRecord(msgspec.Struct, array_like=True):
    """A file of the host.

    Attributes:
        digest: SHA-256 of the file, 32 bytes.
        kind: as the path of the upload named it.
        size: bytes of the file.
        expires_s: Unix seconds after which it is refused.
        data: the file itself when this server reads it; others are kept outside.
    """

    digest: bytes
    kind: str
    size: int
    expires_s: int
    data: bytes | None = None

    @property
    def name(self) -> str:
        """Last part of its path, nothing that a client chose."""
        first, second = (int.from_bytes(self.digest[at : at + 7], "big") for at in (0, 7))
        return f"{first}_{second}_n.enc"

    @property
    def direct_path(self) -> str:
        """Path and query, in the form of the real ones."""
        mark = hashlib.sha256(b"sandbox" + self.digest).digest()
        oh = f"01_{base64.urlsafe_b64encode(mark).decode().rstrip('=')}"
        return f"{_PATH}{self.name}?ccb=11-4&oh={oh}&oe={self.expires_s:x}&_nc_sid=5e03e0"

    @property
    def handle(self) -> str:
        """Opaque name of the upload."""
        return hashlib.sha256(b"handle" + self.digest).hexdigest()[:32]

    def view(self) -> dict[str, Any]:
        """For people and tests."""
        return {
            "token": file_token(self.digest),
            "kind": self.kind,
            "size": self.size,
            "expires": self.expires_s,
            "directPath": self.direct_path,
        }


@dataclass(frozen=True, slots=True)
class Blob:
    """What names an encrypted file that this server made."""

    record: MediaRecord
    media_key: bytes
    file_sha256: bytes
    length: int

    def __repr__(self) -> str:
        return f"Blob({self.length} bytes)"


class Media:
    """Knows the files and who may upload; the shell keeps the bytes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._records: dict[bytes, MediaRecord] = {}
        self._names: dict[str, bytes] = {}
        self._auths: OrderedDict[str, int] = OrderedDict()
        self._sealed: deque[bytes] = deque()

    def conn(self) -> list[Node]:
        """Answer `media_conn`: this server, with a fresh credential (chapter 05 §1.1)."""
        settings, now = self._world.settings, self._world.now_s
        auth = base64.urlsafe_b64encode(self._world.random(AUTH_LENGTH)).decode()
        self._auths[auth] = now + settings.media_auth_ttl_s
        if len(self._auths) > AUTHS_KEPT:
            self._auths.popitem(last=False)
        attrs = {
            "auth": auth,
            "ttl": str(settings.media_ttl_s),
            "auth_ttl": str(settings.media_auth_ttl_s),
            "max_buckets": str(BUCKETS),
        }
        host = Node("host", {"hostname": settings.media_host, "type": "primary"})
        return [Node("media_conn", dict(attrs), [host])]

    def authorised(self, auth: str) -> bool:
        """Whether a credential is known and good."""
        return self._auths.get(auth, 0) > self._world.now_s

    def add(self, digest: bytes, kind: str, size: int, data: bytes | None = None) -> MediaRecord:
        """Take a file in; the same one again keeps its URL, unless its time is over."""
        known = self._records.get(digest)
        if known is not None and not self.expired(known):
            if data is not None and known.data is None:
                known.data = data
                self._keep(known)
            return known
        expires_s = self._world.now_s + self._world.settings.media_days * DAY_S
        record = MediaRecord(digest, kind, size, expires_s, data)
        self._keep(record)
        return record

    def seal(self, kind: MediaKind, plaintext: bytes) -> Blob:
        """Encrypt something of this server's own under a fresh key and take it in; the oldest such file goes."""
        media_key = self._world.random(MEDIA_KEY_LENGTH)
        data, facts = encrypt(media_key, kind, plaintext)
        record = self.add(facts.enc_sha256, kind, len(data), data)
        self._sealed.append(record.digest)
        if len(self._sealed) > SEALED_KEPT:
            self.remove(self._sealed.popleft())
        return Blob(record, media_key, facts.file_sha256, facts.length)

    def by_digest(self, digest: bytes) -> MediaRecord | None:
        """The file with a hash."""
        return self._records.get(digest)

    def by_path(self, path: str) -> MediaRecord | None:
        """The file at a path without query."""
        digest = self._names.get(path.removeprefix(_PATH)) if path.startswith(_PATH) else None
        return None if digest is None else self._records[digest]

    def expired(self, record: MediaRecord) -> bool:
        """Whether its time is over."""
        return record.expires_s <= self._world.now_s

    def expire(self, digest: bytes | None = None) -> int:
        """End the time of a file, or of all; returns how many."""
        chosen = [one for one in self._records.values() if digest in (None, one.digest)]
        for record in chosen:
            record.expires_s = min(record.expires_s, self._world.now_s)
            self._keep(record)
        return len(chosen)

    def remove(self, digest: bytes) -> None:
        """Forget a file."""
        record = self._records.pop(digest, None)
        if record is not None:
            del self._names[record.name]
            self._world.journal.delete(JOURNAL_KIND, digest.hex())

    def forget_auths(self) -> None:
        """Refuse every credential that was given."""
        self._auths.clear()

    def restore(self, value: bytes) -> None:
        """Put a journalled file back, unless its time is over."""
        record = msgspec.msgpack.decode(value, type=MediaRecord)
        if self.expired(record):
            self._world.journal.delete(JOURNAL_KIND, record.digest.hex())
            return
        self._records[record.digest] = record
        self._names[record.name] = record.digest

    def records(self) -> list[MediaRecord]:
        """All files."""
        return list(self._records.values())

    def _keep(self, record: MediaRecord) -> None:
        self._records[record.digest] = record
        self._names[record.name] = record.digest
        if self._world.journal.enabled:
            self._world.journal.put(JOURNAL_KIND, record.digest.hex(), msgspec.msgpack.encode(record))
