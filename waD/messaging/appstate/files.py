"""Files of the app state by way of the media hosts (chapter 05 §4.2, §1.4)."""

from __future__ import annotations

from waD.e2ee.syncd.limits import MAX_FILE_SIZE
from waD.messaging.appstate.page import BlobError, Fetch
from waD.messaging.media.downloads import BlobReference, Fetching
from waD.messaging.media.errors import MediaError
from waD.proto.appstate_pb2 import ExternalBlobReference


def fetching(files: Fetching) -> Fetch:
    """What gets the files of the app state with the downloads of a connection."""

    async def fetch(reference: ExternalBlobReference) -> bytes:
        blob = BlobReference(
            direct_path=reference.directPath,
            media_key=reference.mediaKey,
            file_sha256=reference.fileSha256,
            enc_sha256=reference.fileEncSha256,
            length=None,  # whether fileSizeBytes counts the file or its content is not known; both hashes are checked
        )
        try:
            return await files.fetch(blob, "md-app-state", MAX_FILE_SIZE)
        except MediaError as error:
            raise BlobError(str(error), permanent=error.permanent) from None

    return fetch
