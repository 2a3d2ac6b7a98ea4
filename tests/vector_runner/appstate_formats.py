"""How the vectors of the app state are checked, as far as they need no stanza (chapter 05 §4)."""

from __future__ import annotations

import hashlib
from typing import Any

from tests.vector_runner.core import Format, attempt
from waD.e2ee.kdf import hkdf, hmac_sha256
from waD.e2ee.ratchet import aes_cbc_decrypt
from waD.e2ee.syncd import lthash, mutations, patches
from waD.e2ee.syncd.errors import SyncdError
from waD.e2ee.syncd.keys import MutationKeys
from waD.e2ee.syncd.mutations import Mutation, Operation
from waD.e2ee.syncd.patches import Applied, CollectionState
from waD.proto.appstate_pb2 import ExternalBlobReference, SyncActionValue, SyncdPatch
from waD.proto.e2e_pb2 import SyncdMutation


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def keys_of(case: dict[str, Any]) -> dict[bytes, MutationKeys]:
    listed = case.get("keys", [case])
    return {raw(one["keyId"]): MutationKeys.expand(raw(one["keyData"])) for one in listed}


def state_of(values: dict[str, Any]) -> tuple[CollectionState, dict[bytes, bytes]]:
    macs = {raw(index): raw(value) for index, value in values["macs"].items()}
    return CollectionState(values["version"], raw(values["hash"])), macs


def after(macs: dict[bytes, bytes], applied: Applied) -> dict[bytes, bytes]:
    """The table of a client once it has stored what a patch changed."""
    left = {
        index: mac for index, mac in macs.items() if index not in {one.index_mac for one in applied.removes}
    }
    return left | {one.index_mac: one.value_mac for one in applied.sets}


def facts(mutation: Mutation) -> dict[str, Any]:
    assert mutation.value is not None
    return {
        "operation": mutation.operation.name,
        "index": mutation.index.decode(),
        "version": mutation.version,
        "value": mutation.value.SerializeToString().hex(),
    }


def expand(case: dict[str, Any]) -> None:
    keys = MutationKeys.expand(raw(case["keyData"]))
    assert keys.index == raw(case["indexKey"])
    assert keys.value_encryption == raw(case["valueEncryptionKey"])
    assert keys.value_mac == raw(case["valueMacKey"])
    assert keys.snapshot_mac == raw(case["snapshotMacKey"])
    assert keys.patch_mac == raw(case["patchMacKey"])


def lthash_expand(case: dict[str, Any]) -> None:
    assert lthash.lt_hash([raw(case["value"])]) == raw(case["expanded"])


def lthash_update(case: dict[str, Any]) -> None:
    added, removed = ([raw(one) for one in case[which]] for which in ("add", "subtract"))
    assert lthash.updated(raw(case["base"]), added, removed) == raw(case["result"])


def encode(case: dict[str, Any]) -> None:
    (key_id,) = keys = keys_of(case)
    state, macs = state_of(case["state"])
    index, value = case["index"].encode(), SyncActionValue.FromString(raw(case["value"]))
    operation = Operation[case["operation"]]
    sealed = mutations.encode(key_id, keys[key_id], operation, index, value, case["version"], raw(case["iv"]))
    assert sealed.record.index.blob == raw(case["indexMac"])
    assert sealed.record.value.blob == raw(case["valueBlob"])
    built = patches.build_patch(case["collection"], state, [sealed], key_id, keys, macs)
    assert built.patch.snapshotMac == raw(case["snapshotMac"])
    assert built.patch.patchMac == raw(case["patchMac"])
    assert built.patch.SerializeToString() == raw(case["patch"])
    assert (built.applied.state, after(macs, built.applied)) == state_of(case["newState"])
    opened = mutations.decode(keys, sealed)
    assert facts(opened) == {name: case[name] for name in ("operation", "index", "version", "value")}
    assert opened.parts is not None
    assert mutations.index_json(opened.parts) == index


def decode(case: dict[str, Any]) -> None:
    found = attempt(lambda: applied_all(case), SyncdError)
    if "error" in case:
        assert isinstance(found, SyncdError), found
        assert found.code == case["error"]
        return
    state, macs, told = found
    assert (state, macs) == state_of(case["newState"])
    assert told == case["mutations"]


def applied_all(case: dict[str, Any]) -> tuple[CollectionState, dict[bytes, bytes], list[dict[str, Any]]]:
    """State and table after all patches of a case, and what their mutations say."""
    told: list[dict[str, Any]] = []
    state, macs = state_of(case["state"])
    for data in case["patches"]:
        patch = patches.parse_patch(raw(data))
        applied = patches.apply_patch(case["collection"], state, patch, patch.mutations, keys_of(case), macs)
        if applied.mac_mismatch:
            raise SyncdError("snapshot-mac", "whether this is fatal is up to the caller")
        state, macs = applied.state, after(macs, applied)
        told += [facts(one) for one in applied.mutations]
    return state, macs, told


def snapshot(case: dict[str, Any]) -> None:
    parsed = patches.parse_snapshot(raw(case["snapshot"]))
    found = attempt(lambda: patches.apply_snapshot(case["collection"], parsed, keys_of(case)), SyncdError)
    if "error" in case:
        assert isinstance(found, SyncdError), found
        assert found.code == case["error"]
        return
    assert (found.state, after({}, found)) == state_of(case["newState"])
    assert [facts(one) for one in found.mutations] == case["mutations"]


def external(case: dict[str, Any]) -> None:
    state, macs = state_of(case["state"])
    patch = patches.parse_patch(raw(case["patch"]))
    reference = patches.external_mutations(patch)
    assert reference is not None
    assert reference.directPath == case["path"]
    listed = patches.parse_mutations(opened_file(reference, raw(case["file"])))
    assert len(listed) == case["count"]
    applied = patches.apply_patch(case["collection"], state, patch, listed, keys_of(case), macs)
    assert not applied.mac_mismatch
    assert (applied.state, after(macs, applied)) == state_of(case["newState"])
    expect_rebuilt(case, patch, list(listed), state, macs)


def expect_rebuilt(
    case: dict[str, Any],
    patch: SyncdPatch,
    listed: list[SyncdMutation],
    state: CollectionState,
    macs: dict[bytes, bytes],
) -> None:
    """Our own patch around the same file is the same, but for the version, which the server adds."""
    built = patches.build_patch(
        case["collection"],
        state,
        listed,
        patch.keyId.id,
        keys_of(case),
        macs,
        external=patch.externalMutations,
    )
    built.patch.version.version = patch.version.version
    assert built.patch == patch


def opened_file(reference: ExternalBlobReference, data: bytes) -> bytes:
    """The plaintext of a file of the app state (chapter 05 §2.1, §2.2)."""
    assert hashlib.sha256(data).digest() == reference.fileEncSha256
    material = hkdf(reference.mediaKey, None, b"WhatsApp App State Keys", 112)
    iv, cipher_key, mac_key, ciphertext, mac = (
        material[:16],
        material[16:48],
        material[48:80],
        data[:-10],
        data[-10:],
    )
    assert hmac_sha256(mac_key, iv + ciphertext)[:10] == mac
    plaintext = aes_cbc_decrypt(cipher_key, iv, ciphertext)
    assert hashlib.sha256(plaintext).digest() == reference.fileSha256
    return plaintext


FORMATS: dict[str, Format] = {
    "app_state": {
        "expand": expand,
        "lthash-expand": lthash_expand,
        "lthash": lthash_update,
        "encode": encode,
        "decode": decode,
        "snapshot": snapshot,
        "external": external,
    },
}
