"""Files of the app state on the media host: snapshots made here, mutations of companions (chapter 05 §4.4)."""

from __future__ import annotations

from typing import Final

from waD.e2ee.media import MediaFileError, MediaKind, decrypt
from waD.proto.appstate_pb2 import ExternalBlobReference
from waD.sandbox.errors import SandboxError
from waD.sandbox.media import Media

KIND: Final[MediaKind] = "md-app-state"


class AppStateBlobs:
    """Implements `waD.sandbox.snapshots.BlobStore`."""

    def __init__(self, media: Media) -> None:
        self._media = media

    def store(self, data: bytes) -> ExternalBlobReference:
        """Seal a file under a fresh key and keep it; the reference says where it is."""
        blob = self._media.seal(KIND, data)
        return ExternalBlobReference(
            mediaKey=blob.media_key,
            directPath=blob.record.direct_path,
            handle=blob.record.handle,
            fileSizeBytes=blob.length,
            fileSha256=blob.file_sha256,
            fileEncSha256=blob.record.digest,
        )

    def load(self, reference: ExternalBlobReference) -> bytes:
        """Open a file; raises SandboxError when it is gone or not what the reference says."""
        record = self._media.by_digest(reference.fileEncSha256)
        if record is None or record.data is None or self._media.expired(record):
            raise SandboxError("the file is not on the media host", 404)
        try:
            return decrypt(
                reference.mediaKey,
                KIND,
                record.data,
                enc_sha256=reference.fileEncSha256,
                file_sha256=reference.fileSha256,
            )
        except MediaFileError as error:
            raise SandboxError(f"the file is not what the reference says: {error}") from None
