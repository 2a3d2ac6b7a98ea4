"""Files of the app state on the media host (chapter 05 §4.4)."""

from __future__ import annotations

import pytest

from tests.sandbox.core_client import new_core
from tests.sandbox.test_app_state import Account, muted
from tests.sandbox.test_media_host import guest
from waD.e2ee import media
from waD.proto.appstate_pb2 import ExternalBlobReference, SyncdMutations
from waD.sandbox.environment import Settings
from waD.sandbox.errors import SandboxError
from waD.sandbox.media import SEALED_KEPT
from waD.wire.node import Node

KEY = bytes(range(32))


def opened(reference: ExternalBlobReference, data: bytes) -> bytes:
    return media.decrypt(
        reference.mediaKey,
        "md-app-state",
        data,
        enc_sha256=reference.fileEncSha256,
        file_sha256=reference.fileSha256,
        length=reference.fileSizeBytes,
    )


def test_a_snapshot_is_a_file_of_the_host() -> None:
    account = Account(settings=Settings(app_state_snapshots=True))
    for until in range(1, 5):
        account.phone.settings.mute(account.bob.account, until)
    one, two = (account.client.request("regular_high", snapshot=True).child("snapshot") for _ in range(2))
    assert one is not None
    assert two is not None
    reference = ExternalBlobReference.FromString(one.data)
    other = ExternalBlobReference.FromString(two.data)
    assert reference.mediaKey != other.mediaKey
    assert (len(reference.mediaKey), reference.handle != "") == (32, True)
    record = account.core.media.by_path(reference.directPath.partition("?")[0])
    assert record is not None
    assert record.data is not None
    account.shelf.files[reference.fileSha256] = opened(reference, record.data)
    account.client.apply("regular_high", Node("collection", content=[one]))
    collection = account.client.collections["regular_high"]
    assert (collection.state.version, len(collection.entries), collection.mismatches) == (3, 1, 0)


def test_what_is_stored_can_be_loaded_until_it_expires() -> None:
    core, time = new_core()
    blobs = core.app_state.blobs
    assert blobs is not None
    reference = blobs.store(b"mutations")
    assert blobs.load(reference) == b"mutations"
    for field in ("mediaKey", "fileEncSha256", "fileSha256"):
        changed = ExternalBlobReference.FromString(reference.SerializeToString())
        setattr(changed, field, bytes(32))
        with pytest.raises(SandboxError):
            blobs.load(changed)
    time.advance(31 * 86_400)
    with pytest.raises(SandboxError, match="not on the media host"):
        blobs.load(reference)


def test_own_files_do_not_pile_up() -> None:
    core, _ = new_core()
    for number in range(SEALED_KEPT + 50):
        core.media.seal("md-app-state", b"%d" % number)
    assert len(core.media.records()) == SEALED_KEPT


async def test_mutations_that_a_companion_uploaded_reach_the_phone() -> None:
    account = Account()
    built = account.client.build("regular_high", (["mute", "x@lid"], muted()))
    plain = SyncdMutations(mutations=built.patch.mutations).SerializeToString()
    body, facts = media.encrypt(KEY, "md-app-state", plain)
    async with guest() as one:
        place = (
            await one.upload(body, path=f"/mms/md-app-state/{media.file_token(facts.enc_sha256)}")
        ).json()
        (record,) = one.sandbox.core.media.records()
        assert record.data == body
        assert (await one.http.get(place["direct_path"])).content == body
        reference = ExternalBlobReference(
            mediaKey=KEY,
            directPath=place["direct_path"],
            handle=place["handle"],
            fileSizeBytes=facts.length,
            fileSha256=facts.file_sha256,
            fileEncSha256=facts.enc_sha256,
        )
        assert one.sandbox.core.app_state.load(reference) == plain
        account.core.media.add(record.digest, record.kind, record.size, record.data)
    built.patch.ClearField("mutations")
    built.patch.externalMutations.CopyFrom(reference)
    assert account.client.request("regular_high", built.patch).attrs["version"] == "1"
    assert account.failures() == []
    assert "x@lid" in account.phone.settings.chats


async def test_the_same_file_under_two_kinds() -> None:
    body, facts = media.encrypt(KEY, "md-app-state", b"x")
    token = media.file_token(facts.enc_sha256)
    async with guest() as one:
        first = (await one.upload(body, path=f"/mms/document/{token}")).json()
        assert (await one.upload(body, path=f"/mms/md-app-state/{token}")).json() == first
        (record,) = one.sandbox.core.media.records()
        assert record.data == body
