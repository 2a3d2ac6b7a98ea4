"""What the admin API says about the media host and orders there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from waD.e2ee.media import parse_token
from waD.sandbox.errors import SandboxError
from waD.sandbox.httpd import HttpRequest

if TYPE_CHECKING:
    from waD.sandbox.sandbox import Sandbox

MAX_LISTED: Final = 1000


class Expire(msgspec.Struct, forbid_unknown_fields=True):
    """Body that may name a file; without a name, all of them."""

    token: str | None = None


class MediaAdmin:
    """Handlers of `/admin/media`."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def routes(self) -> list[tuple[str, str, Callable[..., Any]]]:
        """Method, pattern and handler of each request."""
        return [
            ("GET", r"/admin/media", self._files),
            ("POST", r"/admin/media/expire", self._expire),
            ("POST", r"/admin/media/forget-credentials", self._forget_credentials),
        ]

    def _files(self, _request: HttpRequest) -> list[dict[str, Any]]:
        return [record.view() for record in self._sandbox.core.media.records()][:MAX_LISTED]

    async def _expire(self, request: HttpRequest) -> dict[str, Any]:
        body = msgspec.json.decode(request.body or b"{}", type=Expire)
        digest = None if body.token is None else parse_token(body.token)
        if body.token is not None and digest is None:
            raise SandboxError("a token is the base64url of a SHA-256")
        count = self._sandbox.core.media.expire(digest)
        await self._sandbox.flush()
        return {"expired": count}

    def _forget_credentials(self, _request: HttpRequest) -> dict[str, Any]:
        self._sandbox.core.media.forget_auths()
        return {"done": True}
