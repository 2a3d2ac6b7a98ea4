"""waD's own records as canonical JSON, for backups and for people (chapter 08 §1.4).

Keys sorted, no blanks, integers only; bytes are base64 with padding and public keys have 33 bytes. The stored
binary form holds the same, and the age of skipped keys besides.
"""

from __future__ import annotations

import json

from waD.e2ee import curve, skipped
from waD.e2ee.groups import SenderKeyRecord, SenderKeyState
from waD.e2ee.interop.common import (
    IV_LENGTH,
    SEED_LENGTH,
    ConversionError,
    Imported,
    JsonObject,
    ValueRefusedError,
    check_state,
    decode_bytes,
    encode_base64,
    encode_public,
    limited_state,
    load_json,
    read_bytes,
    read_int,
    read_list,
    read_object,
    read_public,
    receiver_chain,
    sender_chain,
    sender_key_record,
    sender_key_state,
    session_record,
)
from waD.e2ee.limits import MAX_COUNTER, MAX_PREKEY_ID
from waD.e2ee.record import PendingPreKey, ReceiverChain, SessionRecord, SessionState

FORMAT_VERSION = 1
_MAX_TIME = (1 << 63) - 1


def import_session(value: object, now_ms: int = 0, *, prune: bool = True) -> Imported[SessionRecord]:
    """Read a session record; `now_ms` becomes the time of skipped keys. Raises ConversionError."""
    record = _versioned(value, "session record")
    warnings: list[str] = []

    def convert(entry: object) -> SessionState | None:
        try:
            return limited_state(_import_state(entry, now_ms), warnings, prune=prune)
        except (ValueRefusedError, curve.CurveError) as error:
            warnings.append(f"session_invalid: {error}")
            return None

    current = None if record.get("cur") is None else convert(record["cur"])
    previous = record.get("prev")
    archived = [convert(entry) for entry in (previous if isinstance(previous, list) else [])]
    return session_record(current, [state for state in archived if state is not None], warnings, now_ms)


def export_session(record: SessionRecord) -> str:
    """Return the canonical JSON text."""
    return _dump(
        {
            "v": FORMAT_VERSION,
            "cur": None if record.current is None else _export_state(record.current),
            "prev": [_export_state(state) for state in record.archived],
        }
    )


def import_sender_key(value: object, now_ms: int = 0, *, prune: bool = True) -> Imported[SenderKeyRecord]:
    """Read a sender-key record; `prune` drops the skipped keys of our own states. Raises ConversionError."""
    record = _versioned(value, "sender-key record")
    warnings: list[str] = []
    states = []
    entries = record.get("states")
    for entry in entries if isinstance(entries, list) else []:
        try:
            states.append(_import_sender_key_state(entry, now_ms))
        except (ValueRefusedError, curve.CurveError) as error:
            warnings.append(f"sender_key_invalid: {error}")
    return sender_key_record(states, warnings, prune=prune)


def export_sender_key(record: SenderKeyRecord) -> str:
    """Return the canonical JSON text."""
    states = [_export_sender_key_state(state) for state in record.states]
    return _dump({"v": FORMAT_VERSION, "states": states})


def _versioned(value: object, what: str) -> JsonObject:
    record = load_json(value)
    if not isinstance(record, dict) or record.get("v") != FORMAT_VERSION:
        raise ConversionError("item_unreadable", f"not a {what} of version {FORMAT_VERSION}")
    return record


def _import_state(value: object, now_ms: int) -> SessionState:
    entry = read_object(value, "session")
    chain = read_object(entry.get("sc"), "sending chain")
    own, closed, stale = entry.get("own"), entry.get("tc"), entry.get("stale", False)
    if not isinstance(own, bool | None) or not isinstance(stale, bool):
        raise ValueRefusedError("a flag that is neither true nor false")
    state = SessionState(
        local_identity=read_public(entry.get("lid"), "local identity"),
        remote_identity=read_public(entry.get("rid"), "remote identity"),
        local_registration_id=read_int(entry.get("lreg"), "local registration id"),
        remote_registration_id=read_int(entry.get("rreg"), "remote registration id"),
        root_key=read_bytes(entry.get("rk"), curve.KEY_LENGTH, "root key"),
        previous_counter=read_int(entry.get("pc"), "previous counter"),
        sender=sender_chain(
            read_public(chain.get("pub"), "ratchet key"),
            read_bytes(chain.get("priv"), curve.KEY_LENGTH, "private ratchet key"),
            read_int(chain.get("i"), "sending index", most=MAX_COUNTER + 1),
            read_bytes(chain.get("k"), curve.KEY_LENGTH, "sending chain key"),
        ),
        receivers=tuple(
            _import_receiver(value, now_ms) for value in read_list(entry.get("rc"), "receiving chains")
        ),
        pending=_import_pending(entry.get("pp")),
        base_key=read_public(entry.get("bk"), "base key"),
        own_base=own,
        created_ms=read_int(entry.get("t0", 0), "created", most=_MAX_TIME),
        used_ms=read_int(entry.get("tu", 0), "used", most=_MAX_TIME),
        closed_ms=None if closed is None else read_int(closed, "closed", most=_MAX_TIME),
        stale=stale,
    )
    check_state(state)
    return state


def _import_receiver(value: object, now_ms: int) -> ReceiverChain:
    chain = read_object(value, "receiving chain")
    key = decode_bytes(chain.get("k"), "receiving chain key")
    if key is not None and len(key) != curve.KEY_LENGTH:
        raise ValueRefusedError("a receiving chain key of the wrong length")
    return receiver_chain(
        read_public(chain.get("pub"), "remote ratchet key"),
        read_int(chain.get("i"), "receiving index", most=MAX_COUNTER + 1),
        key,
        [_import_key(value) for value in read_list(chain.get("mk"), "skipped keys")],
        now_ms,
    )


def _import_key(value: object) -> tuple[int, bytes]:
    match read_list(value, "skipped key"):
        case [counter, seed]:
            key = read_bytes(seed, SEED_LENGTH, "message seed")
        case [counter, cipher_key, mac_key, iv]:
            key = (
                read_bytes(cipher_key, curve.KEY_LENGTH, "cipher key")
                + read_bytes(mac_key, curve.KEY_LENGTH, "MAC key")
                + read_bytes(iv, IV_LENGTH, "IV")
            )
        case _:
            raise ValueRefusedError("a skipped key that is neither a seed nor a triple")
    return read_int(counter, "counter of a skipped key", most=MAX_COUNTER), key


def _import_pending(value: object) -> PendingPreKey | None:
    if value is None:
        return None
    pending = read_object(value, "pending prekey")
    prekey_id = pending.get("id")
    return PendingPreKey(
        None if prekey_id is None else read_int(prekey_id, "prekey id", least=1, most=MAX_PREKEY_ID),
        read_int(pending.get("sid"), "signed prekey id", most=MAX_PREKEY_ID),
        read_public(pending.get("bk"), "pending base key"),
    )


def _export_state(state: SessionState) -> JsonObject:
    sender = state.sender
    pending: JsonObject | None = None
    if state.pending is not None:
        pending = {"sid": state.pending.signed_prekey_id, "bk": encode_public(state.pending.base_key)}
        if state.pending.prekey_id is not None:
            pending["id"] = state.pending.prekey_id
    return {
        "lid": encode_public(state.local_identity),
        "rid": encode_public(state.remote_identity),
        "lreg": state.local_registration_id,
        "rreg": state.remote_registration_id,
        "rk": encode_base64(state.root_key),
        "pc": state.previous_counter,
        "sc": {
            "pub": encode_public(sender.public),
            "priv": encode_base64(sender.private),
            "i": sender.next,
            "k": encode_base64(sender.key),
        },
        "rc": [_export_receiver(chain) for chain in state.receivers],
        "pp": pending,
        "bk": encode_public(state.base_key),
        "own": state.own_base,
        "t0": state.created_ms,
        "tu": state.used_ms,
        "tc": state.closed_ms,
        "stale": state.stale,
    }


def _export_receiver(chain: ReceiverChain) -> JsonObject:
    keys: list[tuple[int, list[str]]] = [
        (counter, [encode_base64(seed)])
        for counter, _, seed in skipped.unpack(chain.seeds, skipped.SEED_ENTRY)
    ]
    keys += [
        (counter, [encode_base64(part) for part in (triple[:32], triple[32:64], triple[64:])])
        for counter, _, triple in skipped.unpack(chain.triples, skipped.TRIPLE_ENTRY)
    ]
    return {
        "pub": encode_public(chain.ratchet),
        "i": chain.next,
        "k": None if chain.key is None else encode_base64(chain.key),
        "mk": [[counter, *parts] for counter, parts in sorted(keys)],
    }


def _import_sender_key_state(value: object, now_ms: int) -> SenderKeyState:
    entry = read_object(value, "sender key")
    keys = [_import_key(key) for key in read_list(entry.get("mk"), "skipped keys")]
    if any(len(seed) != SEED_LENGTH for _, seed in keys):
        raise ValueRefusedError("a skipped sender key without its seed")
    return sender_key_state(
        read_int(entry.get("id"), "sender-key id"),
        read_int(entry.get("i"), "iteration"),
        read_bytes(entry.get("ck"), SEED_LENGTH, "sender chain key"),
        read_public(entry.get("pub"), "signing key"),
        decode_bytes(entry.get("priv"), "private signing key"),
        keys,
        now_ms,
    )


def _export_sender_key_state(state: SenderKeyState) -> JsonObject:
    seeds = skipped.unpack(state.seeds, skipped.SEED_ENTRY)
    return {
        "id": state.key_id,
        "i": state.iteration,
        "ck": encode_base64(state.chain_key),
        "pub": encode_public(state.public),
        "priv": None if state.private is None else encode_base64(state.private),
        "mk": [[counter, encode_base64(seed)] for counter, _, seed in seeds],
    }


def _dump(value: JsonObject) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)
