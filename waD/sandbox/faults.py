"""Faults on order: what goes wrong next, for whom, and how often (chapter 07 §16)."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

import msgspec

from waD.sandbox.errors import SandboxError

if TYPE_CHECKING:
    from waD.sandbox.accounts import Device

NOW: Final = frozenset(
    {
        "close",
        "stall",
        "resume",
        "stream-error",
        "stream-end",
        "ib",
        "ping",
        "exhaust-prekeys",
        "unlink",
        "replaced",
    }
)
"""Kinds that act on the live link (or the stored device) at once."""
LATER: Final = frozenset(
    {
        "failure",
        "duplicate",
        "reorder",
        "drop-ack",
        "delay-ack",
        "ack-error",
        "corrupt-enc",
        "iq",
        "bad-bundle",
        "http",
        "noise",
        "withhold-key",
        "sync-error",
        "bad-patch",
        "media-upload",
        "media-download",
    }
)
"""Kinds that wait for their occasion."""
NOISE_MODES: Final = ("garbage", "bad-certificate", "expired", "silent")
STALL_MODES: Final = ("read", "send", "both", "queue")
PATCH_MODES: Final = ("patch-mac", "snapshot-mac", "value-mac", "index-mac", "version")
MEDIA_MODES: Final = {
    "media-upload": ("slow", "redirect"),
    "media-download": ("slow", "redirect", "damaged", "truncated", "huge", "expired"),
}
MAX_ARMED: Final = 1000


class Fault(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """One order.

    Attributes:
        kind: what happens.
        target: `number` or `number:device`; None: everybody (or, before a login, the next connection).
        count: how often it happens; 0 is until it is cleared.
        code: number of a failure, stream error, iq error, ack error or HTTP answer.
        conflict: `type` of a `<conflict>` in a stream error.
        child: tag of another child of a stream error or `ib`.
        attrs: further attributes of the failure, or of the child.
        xmlns: whose iqs are answered wrongly; None: all.
        backoff_s: told with an iq error, or as Retry-After of a media answer.
        never: the iq is not answered at all; for `http` and media: the TCP connection is cut.
        delay_ms: of an ack; of an upload or each KiB of a download, when it is `slow`.
        mode: how the noise handshake fails, which direction stalls, or what is wrong with a patch or a file.
        collection: of the app state that a `sync-error` or `bad-patch` is about; None: any.
        frame: a closing frame is sent.
        id: number for listing and clearing; given by the sandbox.
        fired: how often it has happened.
    """

    kind: str
    target: str | None = None
    count: int = 1
    code: int | None = None
    conflict: str | None = None
    child: str | None = None
    attrs: dict[str, str] = {}
    xmlns: str | None = None
    backoff_s: int | None = None
    never: bool = False
    delay_ms: int = 0
    mode: str | None = None
    collection: str | None = None
    frame: bool = True
    id: int = 0
    fired: int = 0

    def hits(self, device: Device | None) -> bool:
        """Whether a device is meant."""
        if self.target is None:
            return True
        return device is not None and self.target in (device.account.number, device.key)


class Faults:
    """The faults that are armed."""

    def __init__(self) -> None:
        self._armed: dict[int, Fault] = {}
        self._ids = itertools.count(1)

    def check(self, fault: Fault) -> None:
        """Refuse nonsense with a SandboxError that names it."""
        if fault.kind not in NOW | LATER:
            raise SandboxError(f"unknown fault {fault.kind!r}; there are {', '.join(sorted(NOW | LATER))}")
        if fault.kind == "noise" and fault.mode not in NOISE_MODES:
            raise SandboxError(f"a noise fault needs a mode: {', '.join(NOISE_MODES)}")
        if fault.kind == "stall" and fault.mode not in (None, *STALL_MODES):
            raise SandboxError(f"a stall has one of the modes {', '.join(STALL_MODES)}")
        if fault.kind in ("failure", "ack-error", "sync-error") and fault.code is None:
            raise SandboxError(f"the fault {fault.kind!r} needs a code")
        if fault.kind == "bad-patch" and fault.mode not in PATCH_MODES:
            raise SandboxError(f"a bad patch needs a mode: {', '.join(PATCH_MODES)}")
        if fault.kind == "http" and fault.code is None and not fault.never:
            raise SandboxError("the fault 'http' needs a code, or never=true to cut the connection")
        if fault.kind == "iq" and fault.code is None and not fault.never:
            raise SandboxError("the fault 'iq' needs a code, or never=true")
        self._check_media(fault)
        if fault.count < 0:
            raise SandboxError("count is 0 (until cleared) or more")

    def _check_media(self, fault: Fault) -> None:
        modes = MEDIA_MODES.get(fault.kind)
        if modes is None:
            return
        if fault.target is not None:
            raise SandboxError("requests for media name no device: a media fault has no target")
        if fault.mode is None and fault.code is None and not fault.never:
            raise SandboxError(
                f"the fault {fault.kind!r} needs a code, never=true or a mode: {', '.join(modes)}"
            )
        if fault.mode is not None and fault.mode not in modes:
            raise SandboxError(f"the fault {fault.kind!r} has the modes {', '.join(modes)}")
        if fault.code is not None and not 200 <= fault.code <= 599:
            raise SandboxError("a code of a media fault is an HTTP status from 200 to 599")

    def arm(self, fault: Fault) -> Fault:
        """Keep a fault for its occasion."""
        if len(self._armed) >= MAX_ARMED:
            raise SandboxError(f"{MAX_ARMED} faults are armed already", 409)
        fault.id = next(self._ids)
        self._armed[fault.id] = fault
        return fault

    def take(
        self,
        kind: str,
        device: Device | None = None,
        *,
        xmlns: str | None = None,
        collection: str | None = None,
    ) -> Fault | None:
        """The first armed fault for this occasion, counted as happened; None when there is none."""
        if not self._armed:
            return None
        for fault in self._armed.values():
            meant = fault.xmlns in (None, xmlns) and fault.collection in (None, collection)
            if fault.kind == kind and meant and fault.hits(device):
                fault.fired += 1
                if fault.count and fault.fired >= fault.count:
                    del self._armed[fault.id]
                return fault
        return None

    def clear(self, fault_id: int | None = None) -> int:
        """Disarm one fault, or all; returns how many."""
        if fault_id is None:
            count = len(self._armed)
            self._armed.clear()
            return count
        return 0 if self._armed.pop(fault_id, None) is None else 1

    def report(self) -> list[dict[str, Any]]:
        """The armed faults."""
        return [msgspec.to_builtins(fault) for fault in self._armed.values()]
