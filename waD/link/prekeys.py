"""Our own prekeys: making, uploading, topping up, checking, rotating (chapter 02 §6, chapter 03 §8.5).

Keys are durable before the server hears of them; an upload whose outcome is unknown is repeated with the same keys.
Prekeys of other devices are in `bundles.py`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol, TypeAlias

import trio

from waD.e2ee import curve
from waD.e2ee.curve import KeyPair
from waD.e2ee.limits import MAX_PREKEY_ID
from waD.link.credentials import Credentials, CredentialStore, SignedPreKey
from waD.link.errors import MalformedReply, RequestError, RequestTimeout
from waD.link.stanzas import Requester, big_endian, iq, raise_for_error
from waD.wire.node import Node

LOW_WATERMARK: Final = 5
"""Fewer keys than this on the server at login make an upload."""
HIGH_WATERMARK: Final = 812
"""Keys the server shall have after an upload, and the most that one upload carries."""
MAX_RETRY_DELAY_S: Final = 610
MAX_DIGEST_IDS: Final = 2000
KEYS_BETWEEN_CHECKPOINTS: Final = 64
"""Keys made without letting other tasks run: about 5 ms."""

DAY_MS: Final = 24 * 3600 * 1000
ROTATION_MS: Final = 27 * DAY_MS
ROTATION_JITTER_MS: Final = DAY_MS
ROTATION_RETRY_MS: Final = DAY_MS
RECORD_VERSION: Final = 1

_log = logging.getLogger(__name__)

State: TypeAlias = Literal["new", "uploaded", "direct", "stale"]
"""`new`: not known to be on the server. `direct`: handed out in a retry receipt, never uploaded. `stale`: from before
a restore; decrypts, is never uploaded."""
_STATES: Final[dict[str, State]] = {
    "new": "new",
    "uploaded": "uploaded",
    "direct": "direct",
    "stale": "stale",
}


class PreKeyRecordError(ValueError):
    """A stored one-time prekey is damaged."""


@dataclass(frozen=True, slots=True, repr=False)
class OneTimePreKey:
    """A one-time prekey as stored under the item kind `prekey`, keyed by its decimal id."""

    id: int
    key: KeyPair
    state: State = "new"

    def __repr__(self) -> str:
        return f"OneTimePreKey(id={self.id}, {self.state}, {curve.fingerprint(self.key.public)})"

    def serialize(self) -> bytes:
        """Canonical JSON; holds the private key. The id is the item's key."""
        fields = {
            "v": RECORD_VERSION,
            "priv": base64.b64encode(self.key.private).decode(),
            "pub": base64.b64encode(self.key.public).decode(),
            "state": self.state,
        }
        return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def parse(cls, key_id: int, data: bytes) -> OneTimePreKey:
        """Read a record; raises PreKeyRecordError. The public key is taken as stored: deriving 812 takes time."""
        try:
            fields = json.loads(data)
            key = KeyPair(_key_bytes(fields["priv"]), _key_bytes(fields["pub"]))
            state = _STATES[fields["state"]]
            version = fields["v"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise PreKeyRecordError(f"prekey {key_id} is not a prekey record") from None
        lengths = {len(key.private), len(key.public)}
        if version != RECORD_VERSION or lengths != {curve.KEY_LENGTH} or not 1 <= key_id <= MAX_PREKEY_ID:
            raise PreKeyRecordError(f"prekey {key_id} has keys of a wrong length, a wrong id or version")
        return cls(key_id, key, state)


def _key_bytes(text: str) -> bytes:
    """Base64, or the hexadecimal digits that earlier versions wrote."""
    if len(text) == 2 * curve.KEY_LENGTH:
        return bytes.fromhex(text)
    return base64.b64decode(text, validate=True)


class PreKeyStore(CredentialStore, Protocol):
    """What this module needs durable; every method returns only when it is."""

    async def prekeys(self) -> list[OneTimePreKey]:
        """All one-time prekeys there are, in any order."""
        ...

    async def add_prekeys(self, keys: Sequence[OneTimePreKey], next_prekey_id: int) -> None:
        """Store new keys and the counter, in one unit."""
        ...

    async def mark_uploaded(self, ids: Collection[int]) -> None:
        """Mark those keys that still exist as uploaded and set `server_has_prekeys`, in one unit."""
        ...


def draw_prekeys(
    first_id: int, count: int, taken: Collection[int], random: Callable[[int], bytes]
) -> Iterator[OneTimePreKey]:
    """Make keys with increasing ids from `first_id`, wrapping to 1 and skipping ids that still have a record.

    The id after the last one is `next_id(last)`.
    """
    for number in free_ids(first_id, count, taken):
        yield OneTimePreKey(number, KeyPair.generate(random))


def free_ids(first_id: int, count: int, taken: Collection[int]) -> Iterator[int]:
    """The next ids from `first_id` on that no record has; fewer than `count` when there are no more."""
    number = first_id
    for _ in range(min(count, MAX_PREKEY_ID - len(taken))):
        while number in taken:
            number = next_id(number)
        yield number
        number = next_id(number)


def next_id(number: int) -> int:
    """The prekey id after another: 16777215 is followed by 1 (chapter 02 §6.1)."""
    return number % MAX_PREKEY_ID + 1


def upload_node(credentials: Credentials, keys: Sequence[OneTimePreKey]) -> Node:
    """Build the upload (chapter 02 §6.1)."""
    return iq(
        "set",
        "encrypt",
        Node("registration", {}, big_endian(credentials.registration_id, 4)),
        Node("type", {}, bytes((curve.KEY_TYPE,))),
        Node("identity", {}, credentials.identity.public),
        Node("list", {}, [key_node(key.id, key.key.public) for key in keys]),
        skey_node(credentials.signed_prekey),
    )


def key_node(key_id: int, public: bytes) -> Node:
    """`<key>` with a one-time prekey, as in uploads and retry receipts."""
    return Node("key", {}, [Node("id", {}, big_endian(key_id, 3)), Node("value", {}, public)])


def skey_node(key: SignedPreKey) -> Node:
    """`<skey>` with a signed prekey."""
    node = key_node(key.id, key.key.public)
    return Node("skey", {}, [*node.children(), Node("signature", {}, key.signature)])


def rotate_node(key: SignedPreKey) -> Node:
    """Build the rotation of the signed prekey (chapter 02 §6.4)."""
    return iq("set", "encrypt", Node("rotate", {}, [skey_node(key)]))


def count_of(reply: Node) -> int:
    """Keys the server has; a missing value counts as 0. Raises RequestError."""
    counted = raise_for_error(reply, "prekey count").child("count")
    return (counted.int("value") if counted is not None else None) or 0


def digest_of(identity: bytes, signed: bytes, signature: bytes, one_time: Sequence[bytes]) -> bytes:
    """SHA-1 over what the server should have, 20 bytes (chapter 02 §6.3)."""
    whole = b"".join((identity, signed, signature, *one_time))
    return hashlib.sha1(whole, usedforsecurity=False).digest()


DigestResult: TypeAlias = Literal["equal", "different", "absent", "unreadable"]


def compare_digest(reply: Node, credentials: Credentials, keys: Collection[OneTimePreKey]) -> DigestResult:
    """Compare the server's digest with ours; `absent` asks for a full upload. Raises RequestError."""
    digest = raise_for_error(reply, "prekey digest").child("digest")
    if digest is None:
        return "absent"
    listed, told = digest.child("list"), digest.child("hash")
    if listed is None or told is None or len(told.data) != hashlib.sha1(usedforsecurity=False).digest_size:
        return "unreadable"
    ids = [int.from_bytes(node.data, "big") for node in listed.children("id")[: MAX_DIGEST_IDS + 1]]
    by_id = {key.id: key.key.public for key in keys}
    if len(ids) > MAX_DIGEST_IDS:
        return "unreadable"
    if not all(number in by_id for number in ids):
        return "different"
    signed = credentials.signed_prekey
    ours = digest_of(
        credentials.identity.public, signed.key.public, signed.signature, [by_id[number] for number in ids]
    )
    return "equal" if ours == told.data else "different"


def fibonacci_delays() -> Iterator[int]:
    """Seconds between tries: 1, 2, 3, 5, 8 … 610, 610 … (chapter 02 §6.1)."""
    delay, following = 1, 2
    while True:
        yield min(delay, MAX_RETRY_DELAY_S)
        delay, following = following, delay + following


class PreKeys:
    """Keeps the server supplied over one connection; one upload at a time.

    Args:
        requester: the connection.
        store: where keys become durable first.
        random: source of unpredictable bytes.
    """

    def __init__(self, requester: Requester, store: PreKeyStore, random: Callable[[int], bytes]) -> None:
        self._requester = requester
        self._store = store
        self._random = random
        self._lock = trio.Lock()
        self._rotating = trio.Lock()

    async def at_login(self) -> None:
        """Step 2 of the login order (chapter 02 §5.2): count, and upload when the server has fewer than 5.

        One try only: a failure is the caller's to log, and `top_up` tries again later.

        Raises:
            RequestError, RequestTimeout, Disconnected: the count or the upload failed.
        """
        async with self._lock:
            if not (await self._store.credentials()).server_has_prekeys:
                await self._fill_from_nothing()
            elif (count := await self._count()) < LOW_WATERMARK:
                await self._fill(count)

    async def top_up(self) -> None:
        """After a low notification: fill up to 812, whatever number it named; retries while connected.

        Raises:
            RequestError: refused for good (4xx except 429).
            Disconnected: the connection is over.
        """
        async with self._lock:
            await self._with_retries(self._fill)

    async def upload_all(self) -> None:
        """The server has no record of us: upload a full lot; retries while connected. Raises as `top_up`."""
        async with self._lock:
            await self._with_retries(self._fill_from_nothing)

    async def replenish(self) -> int:
        """Upload a full lot, whatever the server has: keys of unknown fate again, the rest new; one try.

        Returns:
            How many keys went.

        Raises:
            RequestError, RequestTimeout, Disconnected: not all of them went; the same keys go with the next upload.
        """
        async with self._lock:
            repeated = await self._repeat_uploads()
            await self._upload_new(HIGH_WATERMARK - repeated)
        return max(repeated, HIGH_WATERMARK)

    async def check_digest(self) -> DigestResult:
        """Compare what the server has with what we have; without a record there, upload (chapter 02 §6.3).

        Raises:
            RequestError, RequestTimeout, Disconnected: nothing is known; try at the next login.
        """
        node = iq("get", "encrypt", Node("digest"))
        try:
            reply = await self._requester.request(node)
            verdict = compare_digest(reply, await self._store.credentials(), await self._store.prekeys())
        except RequestError as refusal:
            if refusal.code != 404:
                raise
            verdict = "absent"
        if verdict == "absent":
            await self.upload_all()
        elif verdict != "equal":
            _log.warning("the server's digest of our prekeys is %s", verdict)
        return verdict

    async def rotate_if_due(self, now_ms: int) -> bool:
        """Replace a signed prekey older than 27 days; the two before it stay usable (chapter 02 §6.4).

        Returns:
            Whether the server took a new one.

        Raises:
            RequestError: refused; the candidate is dropped on 406 and 409 and kept otherwise.
            RequestTimeout, Disconnected: outcome unknown; the same candidate goes again next time.
        """
        credentials = await self._store.credentials()
        jitter_ms = int.from_bytes(hashlib.sha256(credentials.identity.public).digest()[:8], "big")
        made_ms = max(credentials.last_rotation_ms, credentials.signed_prekey.created_ms)
        if now_ms - made_ms < ROTATION_MS + jitter_ms % ROTATION_JITTER_MS:
            return False
        await self.rotate(now_ms)
        return True

    async def rotate(self, now_ms: int) -> SignedPreKey:
        """Replace the signed prekey, however old it is; returns the new one. Raises as `rotate_if_due`."""
        async with self._rotating:
            return await self._rotate(now_ms)

    async def _rotate(self, now_ms: int) -> SignedPreKey:
        credentials = await self._store.credentials()
        candidate = credentials.rotation_candidate
        if candidate is None:
            candidate = SignedPreKey.make(
                next_id(credentials.signed_prekey.id), credentials.identity, self._random, now_ms
            )
            staged = candidate
            await self._store.change_credentials(lambda now: now.change(rotation_candidate=staged))
        try:
            await self._requester.request(rotate_node(candidate))
        except RequestError as refusal:
            if refusal.code in (406, 409):
                await self._store.change_credentials(lambda now: now.change(rotation_candidate=None))
            raise
        taken = candidate
        await self._store.change_credentials(lambda now: now.with_new_signed_prekey(taken, now_ms))
        return taken

    async def _count(self) -> int:
        return count_of(await self._requester.request(iq("get", "encrypt", Node("count"))))

    async def _fill(self, count: int | None = None) -> None:
        """Fill up what the server counts; keys of unknown fate first, because it may have them already."""
        if await self._repeat_uploads() or count is None:
            count = await self._count()
        await self._upload_new(HIGH_WATERMARK - count)

    async def _fill_from_nothing(self) -> None:
        """The server has no keys of ours, or only those of unknown fate."""
        await self._upload_new(HIGH_WATERMARK - await self._repeat_uploads())

    async def _repeat_uploads(self) -> int:
        """Upload the same keys again whose upload was never answered; returns how many."""
        known = await self._store.prekeys()
        waiting = sorted((key for key in known if key.state == "new"), key=lambda key: key.id)
        for start in range(0, len(waiting), HIGH_WATERMARK):
            await self._upload(waiting[start : start + HIGH_WATERMARK])
        return len(waiting)

    async def _upload_new(self, count: int) -> None:
        if count > 0:
            await self._upload(await self._make(min(count, HIGH_WATERMARK)))

    async def _upload(self, lot: Sequence[OneTimePreKey]) -> None:
        await self._requester.request(upload_node(await self._store.credentials(), lot))
        await self._store.mark_uploaded([key.id for key in lot])

    async def _make(self, count: int) -> list[OneTimePreKey]:
        """Make keys and store them; their ids are reserved first, because retry receipts take some meanwhile."""
        taken = {key.id for key in await self._store.prekeys()}
        ids: list[int] = []

        def reserve(now: Credentials) -> Credentials:
            ids[:] = free_ids(now.next_prekey_id, count, taken)
            return now.change(next_prekey_id=next_id(ids[-1]))

        await self._store.change_credentials(reserve)
        keys: list[OneTimePreKey] = []
        for number in ids:
            keys.append(OneTimePreKey(number, KeyPair.generate(self._random)))
            if len(keys) % KEYS_BETWEEN_CHECKPOINTS == 0:
                await trio.lowlevel.checkpoint()
        await self._store.add_prekeys(keys, (await self._store.credentials()).next_prekey_id)
        return keys

    async def _with_retries(self, work: Callable[[], Awaitable[None]]) -> None:
        for delay in fibonacci_delays():
            try:
                await work()
            except (RequestTimeout, MalformedReply, RequestError) as failure:
                if isinstance(failure, RequestError) and not _worth_retrying(failure):
                    raise
                wait = max(delay, (failure.backoff or 0) if isinstance(failure, RequestError) else 0)
                _log.warning("prekey upload failed (%s); again in %d s", failure, wait)
                await trio.sleep(wait)
            else:
                return


def _worth_retrying(failure: RequestError) -> bool:
    return failure.code in (408, 429) or failure.code >= 500


def uploaded(key: OneTimePreKey) -> OneTimePreKey:
    """The same key, known to be on the server."""
    return replace(key, state="uploaded")
