"""Auth states: backups, restores, and whether what is stored would work."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from waD.control.types.base import Answer, NameParam, Params

RestoreMode: TypeAlias = Literal["drop", "receive-only"]
MAX_RECIPIENTS: Final = 64
MAX_PART: Final = 256 * 1024
"""Bytes of a file that go over the socket at once."""

FileId: TypeAlias = Annotated[str, msgspec.Meta(min_length=32, max_length=32)]
RecipientsParam: TypeAlias = Annotated[
    list[Annotated[str, msgspec.Meta(min_length=1, max_length=128)]], msgspec.Meta(max_length=MAX_RECIPIENTS)
]
PassphraseParam: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
PartParam: TypeAlias = Annotated[bytes, msgspec.Meta(max_length=MAX_PART)]
OffsetParam: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]


class NoteView(Answer, frozen=True, kw_only=True):
    """One thing that was found. `code` is stable; `item` names what it is about."""

    code: str
    item: str = ""
    detail: str = ""


class Verdict(Answer, frozen=True, kw_only=True):
    """What a verification says.

    Attributes:
        level: 1 structure, 2 cryptography, 3 store, 4 WhatsApp as well (chapter 08 §7.6).
        ok: whether there is no error.
        counts: items by kind.
        versions: epoch and version of what was looked at.
    """

    level: int
    ok: bool
    errors: list[NoteView] = []
    warnings: list[NoteView] = []
    counts: dict[str, int] = {}
    versions: dict[str, int] = {}


class BackupParams(Params, frozen=True, kw_only=True):
    """Parameters of `auth.backup`: either public keys, `age1…`, or a passphrase.

    Attributes:
        outbox: put messages on their way out into it.
        history: put messages and events into it.
        compress: with gzip.
        final: for a planned move: the session is retired before the archive is given out.
    """

    name: NameParam
    recipients: RecipientsParam = []
    passphrase: PassphraseParam | None = None
    outbox: bool = False
    history: bool = False
    compress: bool = False
    final: bool = False

    def __repr__(self) -> str:
        return f"BackupParams(name={self.name!r}, final={self.final})"


class BackupResult(Answer, frozen=True, kw_only=True):
    """Answer of `auth.backup`: an archive that was read again and verified, to be fetched within ten minutes.

    Attributes:
        id: names it in `auth.fetch` and `auth.discard`.
        file_name: what it should be called.
        size: bytes.
        sha256: of the file, in hex.
        verdict: what the verification of the archive says.
    """

    id: str
    name: str
    connection_id: str
    file_name: str
    size: int
    sha256: str
    created_at: int
    epoch: int
    version: int
    verdict: Verdict


class FetchParams(Params, frozen=True, kw_only=True):
    """Parameters of `auth.fetch`: the part of a file that begins at `offset`."""

    id: FileId
    offset: OffsetParam = 0


class Part(Answer, frozen=True, kw_only=True):
    """Answer of `auth.fetch`: at most 256 KiB, in base64; `end` with the last one."""

    data: bytes
    end: bool

    def __repr__(self) -> str:
        return f"Part({len(self.data)} bytes, end={self.end})"


class DiscardParams(Params, frozen=True, kw_only=True):
    """Parameters of `auth.discard`; `kept` says that the client has stored what it fetched, durably."""

    id: FileId
    kept: bool = False


class UploadParams(Params, frozen=True, kw_only=True):
    """Parameters of `auth.upload`: the next part of a decrypted archive, at most 256 KiB in base64.

    Without `id` it begins a new one.
    """

    data: PartParam
    id: FileId | None = None

    def __repr__(self) -> str:
        return f"UploadParams({len(self.data)} bytes)"


class UploadResult(Answer, frozen=True, kw_only=True):
    """Answer of `auth.upload`: names the file from now on, and how large it is by now."""

    id: str
    size: int


class RestoreParams(Params, frozen=True, kw_only=True):
    """Parameters of `auth.restore`.

    Attributes:
        id: of the uploaded archive.
        sha256: of the archive as it was before it was decrypted, for the event.
        source: name or connection id in the archive; needed when there are several.
        name: of the session here, that of the archive if not given; it is made if there is none.
        mode: what becomes of the conversations of an old state.
        rollback_anyway: replace a state that is newer.
        replace_unreadable: replace a state whose key is not here although nothing tells whose it is.
        history: also add the messages of the archive.
        dry_run: say what would happen.
    """

    id: FileId
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")] | None = None
    source: NameParam | None = None
    name: NameParam | None = None
    mode: RestoreMode = "drop"
    rollback_anyway: bool = False
    replace_unreadable: bool = False
    history: bool = False
    dry_run: bool = False


class RestoreResult(Answer, frozen=True, kw_only=True):
    """Answer of `auth.restore` and `auth.restore_seal`.

    Attributes:
        exact: the state goes on as it was, since nothing happened after it.
        plan: what happens to conversations and keys, for people.
        peers: accounts whose session is lost, or only receives.
        sessions: pairwise sessions of them.
        held: messages on their way out that wait for the operator.
        messages: that were added to the history.
        backup: where what was in place is sealed.
        lost: messages on their way out that failed, since the key of their text is not here.
        verdict: what the verification says, and a warning `state_locked` where what is in place cannot be read.
    """

    name: str
    connection_id: str
    done: bool
    exact: bool
    plan: list[str]
    peers: int
    sessions: int
    verdict: Verdict
    held: int = 0
    messages: int = 0
    backup: str | None = None
    lost: int = 0


class SealView(Answer, frozen=True, kw_only=True):
    """A sealed copy of an auth state.

    Attributes:
        reason: periodic, shutdown, pre_migration (a change of the storage), pre_reset (cleared), pre_restore
            (replaced) or manual (before a repair or a removal).
        items: in it.
        current: nothing was committed since, so it goes on exactly.
    """

    epoch: int
    version: int
    reason: str
    sealed_at: int
    items: int
    current: bool = False


class SealList(Answer, frozen=True, kw_only=True):
    """Answer of `auth.seals`, newest first; `epoch` and `version` are of what is in place."""

    name: str
    connection_id: str
    epoch: int
    version: int
    seals: list[SealView]


class SealRestoreParams(Params, frozen=True, kw_only=True):
    """Parameters of `auth.restore_seal`: which sealed copy of the session.

    Attributes:
        mode: what becomes of the conversations of an old state.
        rollback_anyway: replace a state that is newer.
        replace_unreadable: replace a state whose key is not here although nothing tells whose it is.
        dry_run: say what would happen.
    """

    name: NameParam
    epoch: Annotated[int, msgspec.Meta(ge=0, le=1 << 31)]
    version: Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
    mode: RestoreMode = "drop"
    rollback_anyway: bool = False
    replace_unreadable: bool = False
    dry_run: bool = False


class CompareParams(Params, frozen=True, kw_only=True):
    """Parameters of `auth.compare`: an uploaded archive against the session `name`.

    Attributes:
        source: name or connection id in the archive; needed when there are several.
        mode: what a restore would make of the conversations.
    """

    id: FileId
    name: NameParam
    source: NameParam | None = None
    mode: RestoreMode = "drop"


class DifferenceView(Answer, frozen=True, kw_only=True):
    """Items of one kind: how many only one side has, and whose is older or newer, seen from the archive.

    `different` are those whose versions tell nothing, since the epochs differ.
    """

    only_archive: int = 0
    only_store: int = 0
    older: int = 0
    newer: int = 0
    different: int = 0
    equal: int = 0


class CompareResult(Answer, frozen=True, kw_only=True):
    """Answer of `auth.compare`.

    Attributes:
        same_identity: both are states of the same linked device.
        same_epoch: versions can be compared.
        equal: both hold the same items.
        exact: a restore would go on as it is.
        archive: epoch and version of the archive.
        store: epoch and version of what is in place.
        kinds: differences by kind of item.
        plan: what a restore would do to conversations and keys, for people.
        peers: accounts whose session would be lost, or only receive.
        sessions: pairwise sessions of them.
        verdict: what the verification of the archive says.
    """

    name: str
    connection_id: str
    same_identity: bool
    same_epoch: bool
    equal: bool
    exact: bool
    archive: dict[str, int]
    store: dict[str, int]
    kinds: dict[str, DifferenceView]
    plan: list[str]
    peers: int
    sessions: int
    verdict: Verdict


class VerifyParams(Params, frozen=True, kw_only=True):
    """Parameters of `auth.verify`."""

    name: NameParam
    level: Annotated[int, msgspec.Meta(ge=1, le=4)] = 3


class VerifyResult(Answer, frozen=True, kw_only=True):
    """Answer of `auth.verify`."""

    name: str
    connection_id: str
    verdict: Verdict
