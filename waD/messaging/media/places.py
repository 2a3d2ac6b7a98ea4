"""URLs of media files (chapter 05 §1.4). Pure."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, urlsplit

from waD.e2ee.media import MediaKind, file_token
from waD.messaging.media.errors import MediaError

MAX_PATH: Final = 4096

_PATH: Final = re.compile(r"/(?![/\\])[!-~]*", re.ASCII)
_FORBIDDEN: Final = re.compile(r'[\\#"<>^`{|}]')
_EXPIRY: Final = re.compile(r"[?&]oe=([0-9A-Fa-f]{1,12})(?:&|$)", re.ASCII)
_TYPES: Final[dict[MediaKind, str]] = {"product": "image", "ptv": "video"}


def media_type(kind: MediaKind) -> str:
    """The name of a kind in URLs and host lists."""
    return _TYPES.get(kind, kind)


def check_path(direct_path: str) -> None:
    """Refuse what leads anywhere but to a file of the host it is put behind.

    Raises:
        MediaError: `malicious_path`.
    """
    sound = (
        len(direct_path) <= MAX_PATH and _PATH.fullmatch(direct_path) and not _FORBIDDEN.search(direct_path)
    )
    if not sound:
        raise MediaError("malicious_path", "the direct path is not a path on a media host", permanent=True)


def download_url(host: str, direct_path: str, kind: MediaKind, enc_sha256: bytes) -> str:
    """Where a host keeps a file.

    Args:
        host: name, perhaps with a port, from `media_conn`.
        direct_path: path and perhaps query, as announced.
        kind: of the file.
        enc_sha256: hash of the file, 32 bytes.

    Raises:
        MediaError: `malicious_path`.
    """
    check_path(direct_path)
    mark = "&" if "?" in direct_path else "?"
    token = quote(file_token(enc_sha256), safe="")
    url = f"https://{host}{direct_path}{mark}hash={token}&mms-type={media_type(kind)}&__wa-mms="
    if urlsplit(url).netloc != host:
        raise MediaError("malicious_path", "the direct path leads to another host", permanent=True)
    return url


def expired(direct_path: str, now_s: float) -> bool:
    """Whether a path says of itself that its time is over (`oe`, Unix seconds in hexadecimal)."""
    match = _EXPIRY.search(direct_path)
    return match is not None and int(match[1], 16) < now_s
