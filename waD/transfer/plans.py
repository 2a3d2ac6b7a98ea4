"""What a restore would do, and whether it may (chapter 08 §7.4, §7.5, §7.7): pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from waD.messaging import kinds
from waD.transfer.archive import Manifest
from waD.transfer.reviving import ItemKey, Mode, Revival, is_own, peers_of
from waD.transfer.state import AuthState

RESTORED_STATUS: Final[dict[str, str]] = {"current_status": "stopped", "desired_state": "down"}
"""Columns of a restored session: the operator starts it."""


class RestoreRefused(Exception):  # noqa: N818 - what is the case
    """A restore would destroy something; nothing was changed.

    Attributes:
        code: `target_newer` and `identity_unknown` (there is a way to insist), `other_identity`, `already_here`,
            `kek_unavailable`, `not_paired`, `moved_on` or `which_session`.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Saved(Protocol):
    """A state of the past: of an archive, or of a seal."""

    @property
    def epoch(self) -> int:
        """Its epoch."""
        ...

    @property
    def version(self) -> int:
        """Its version in that."""
        ...

    @property
    def identity_fp(self) -> str:
        """First 8 hex digits of the SHA-256 of its identity key."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """What is in place where an archive is to go. `identity_fp`: of the paired state, None if there is none."""

    identity_fp: str | None
    epoch: int
    version: int


def check_target(
    saved: Saved, target: Target, *, rollback_anyway: bool = False, what: str = "archive"
) -> None:
    """Refuse to lose a newer or another state.

    Args:
        saved: the state that is to be put in place.
        target: what is in place.
        rollback_anyway: the operator knows that the state in place is newer.
        what: the former is of, for the error.

    Raises:
        RestoreRefused: nothing may be written.
    """
    if target.identity_fp is None:
        return
    if target.identity_fp != saved.identity_fp:
        raise RestoreRefused(
            "other_identity",
            f"the session has a paired state with another identity ({target.identity_fp}, {what} "
            f"{saved.identity_fp}): restore into another name, or unlink it first",
        )
    if (target.epoch, target.version) > (saved.epoch, saved.version) and not rollback_anyway:
        raise RestoreRefused(
            "target_newer",
            f"the state in place (epoch {target.epoch}, version {target.version}) is newer than the {what}'s "
            f"(epoch {saved.epoch}, version {saved.version}): every session with a peer would be lost for nothing; "
            "--rollback-anyway if you mean it",
        )


def next_epoch(target: Target | None, saved: Saved) -> int:
    """The epoch of a restored state: after every one that was."""
    return max(0 if target is None else target.epoch, saved.epoch) + 1


def is_exact(manifest: Manifest, sha256: str, used: Collection[str]) -> bool:
    """Whether an archive may go on as it is: made by a planned move, and not restored before.

    Args:
        manifest: of the archive.
        sha256: of its file, in hex.
        used: hashes of the archives that were restored exactly.
    """
    return manifest.final and sha256 not in used


@dataclass(frozen=True, slots=True)
class Plan:
    """What a restore does to the conversations.

    Attributes:
        exact: nothing: the state goes on.
        mode: what becomes of sessions.
        peers: accounts whose sessions are lost or only receive.
        sessions: pairwise sessions of them.
        sender_keys: own ones that are made anew.
        prekeys: one-time prekeys that are not offered again.
        damaged: items that are dropped because they cannot be read.
        held: messages on their way out that wait for the operator.
    """

    exact: bool
    mode: Mode
    peers: int
    sessions: int
    sender_keys: int
    prekeys: int
    damaged: int = 0
    held: int = 0

    def lines(self) -> Iterator[str]:
        """For people."""
        if self.exact:
            yield "the state goes on exactly where it stopped; no conversation notices"
        elif self.mode == "drop":
            yield f"peers that lose their session, until the next message either way makes a new one: {self.peers}"
            yield f"pairwise sessions that are dropped: {self.sessions}"
        else:
            yield f"peers whose session only receives, until its next key exchange: {self.peers}"
            yield f"pairwise sessions that become receive-only: {self.sessions}"
        if not self.exact:
            yield f"group keys that are made anew with the next message: {self.sender_keys}"
            yield f"one-time prekeys that still decrypt but are not offered again: {self.prekeys}"
        if self.damaged:
            yield f"items that cannot be read and are dropped: {self.damaged}"
        if self.held:
            yield f"messages on their way out that are held until you release them: {self.held}"


def plan(state: AuthState, mode: Mode = "drop", *, exact: bool = False, held: int = 0) -> Plan:
    """What a restore of a state would do, before it is done."""
    own = [key for key in state.of(kinds.SENDER_KEY) if is_own(key, state.creds)]
    return Plan(
        exact=exact,
        mode=mode,
        peers=0 if exact else len(peers_of(state)),
        sessions=0 if exact else len(state.of(kinds.SESSION)),
        sender_keys=0 if exact else len(own),
        prekeys=0 if exact else len(state.of(kinds.PREKEY)),
        held=held,
    )


def done(revival: Revival, mode: Mode, held: int = 0) -> Plan:
    """What a restore has done."""
    return Plan(
        exact=revival.exact,
        mode=mode,
        peers=revival.peers,
        sessions=revival.dropped + revival.receive_only,
        sender_keys=revival.sender_keys,
        prekeys=revival.stale_prekeys,
        damaged=revival.damaged,
        held=held,
    )


@dataclass(slots=True)
class Difference:
    """How the items of one kind in an archive stand to those of a store."""

    only_archive: int = 0
    only_store: int = 0
    older: int = 0
    newer: int = 0
    different: int = 0
    equal: int = 0


@dataclass(slots=True)
class Comparison:
    """How an archive stands to a store (chapter 08 §7.7). By kind of item; `same_epoch`: versions can be compared."""

    same_epoch: bool
    kinds: dict[str, Difference] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        """Whether both hold the same."""
        return all(
            not (one.only_archive or one.only_store or one.older or one.newer or one.different)
            for one in self.kinds.values()
        )


def compare(
    archived: Mapping[ItemKey, tuple[int, bytes]],
    stored: Mapping[ItemKey, tuple[int, bytes]],
    *,
    same_epoch: bool,
) -> Comparison:
    """Compare items, version and document, by kind: by version in one epoch, else by content.

    `older` and `newer` are the archive's items; `different` are those whose versions tell nothing.
    """
    found = Comparison(same_epoch)
    for key in sorted(archived.keys() | stored.keys()):
        _count(found.kinds.setdefault(key[0], Difference()), archived.get(key), stored.get(key), same_epoch)
    return found


def _count(
    into: Difference, archived: tuple[int, bytes] | None, stored: tuple[int, bytes] | None, same_epoch: bool
) -> None:
    if archived is None:
        into.only_store += 1
    elif stored is None:
        into.only_archive += 1
    elif archived[1] == stored[1]:
        into.equal += 1
    elif not same_epoch or archived[0] == stored[0]:
        into.different += 1
    elif archived[0] < stored[0]:
        into.older += 1
    else:
        into.newer += 1
