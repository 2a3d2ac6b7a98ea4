"""Why a media file cannot be had."""

from __future__ import annotations

from typing import Literal, TypeAlias

from waD.e2ee.media import MediaFault

MediaCode: TypeAlias = (
    Literal[
        "reference",
        "too_large",
        "malicious_path",
        "media_conn",
        "credential",
        "forbidden",
        "gone",
        "redirect",
        "throttled",
        "status",
        "server",
        "network",
        "tls",
        "timeout",
    ]
    | MediaFault
)
"""`reference`: what names the file cannot be right. `too_large`: the file, or what a host sends, is over the limit.
`malicious_path`: the direct path leads to another host. `media_conn`: no media host is known. `credential`,
`forbidden`, `gone`, `redirect`, `throttled`, `status`, `server`: answers of a host (chapter 05 §1.4). `network`, `tls`,
`timeout`: there was none. The others are the checks of chapter 05 §2.4."""


class MediaError(Exception):
    """A media file was not fetched; nothing of it was handed out.

    Attributes:
        code: stable.
        permanent: asking again with the same reference is in vain.
        status: of the host's answer, when there was one.
        retry_after_s: seconds to wait before asking again, when the server said so.
    """

    def __init__(
        self,
        code: MediaCode,
        detail: str,
        *,
        permanent: bool = False,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code: MediaCode = code
        self.detail = detail
        self.permanent = permanent
        self.status = status
        self.retry_after_s = retry_after_s
