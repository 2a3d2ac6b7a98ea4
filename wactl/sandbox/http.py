"""The sandbox's admin API: JSON over HTTP."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import click
import msgspec

from wactl.base import App
from wactl.failure import Failure, unreachable, usage
from wactl.text import clean
from waD.control import types as t

DEFAULT_URL: Final = "http://127.0.0.1:8080"
ANSWER_S: Final = 60.0
MAX_ANSWER: Final = 64 << 20

_EXITS: Final = {400: t.EXIT_USAGE, 404: t.EXIT_STATE, 409: t.EXIT_STATE}
_SYMBOLS: Final = {400: "bad_params", 404: "no_such_session", 409: "wrong_state"}
_F = TypeVar("_F", bound=Callable[..., Any])


class Admin:
    """Orders to one sandbox.

    Args:
        url: `http://HOST:PORT` or `https://HOST:PORT`.
        ca_file: whom to trust for https, as the sandbox prints it.
    """

    def __init__(self, url: str, ca_file: str | None = None) -> None:
        self.url = url
        parts = urlsplit(url)
        try:
            self._port = parts.port
        except ValueError:
            raise usage(f"--url {url!r} has no port that can be") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise usage(f"--url {url!r}: expected for example {DEFAULT_URL}")
        self._host = parts.hostname
        self._secure = parts.scheme == "https"
        self._ca_file = ca_file

    def get(self, path: str, **query: object) -> Any:
        """Read something; what is None is left out of the query."""
        known = {name: str(value) for name, value in query.items() if value is not None}
        return self._call("GET", f"{path}?{urlencode(known)}" if known else path)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Give an order; members that are None are left out."""
        document = {name: value for name, value in (body or {}).items() if value is not None}
        try:
            return self._call("POST", path, msgspec.json.encode(document))
        except UnicodeEncodeError:
            raise usage("an argument is not valid UTF-8; nothing was done") from None

    def delete(self, path: str) -> Any:
        """Delete something."""
        return self._call("DELETE", path)

    def _call(self, method: str, path: str, body: bytes | None = None) -> Any:
        status, data = self._exchange(method, path, body)
        try:
            answer = msgspec.json.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            message = f"what answers at {self.url} is not a sandbox (HTTP {status})"
            raise Failure("protocol", message, t.EXIT_REFUSED) from None
        if status < 400:
            return answer
        reason = answer.get("error") if isinstance(answer, dict) else None
        raise Failure(
            _SYMBOLS.get(status, "refused"),
            f"the sandbox refused: {reason or f'HTTP {status}'}",
            _EXITS.get(status, t.EXIT_REFUSED),
            data={"status": status},
        )

    def _exchange(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        connection = self._connection()
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            data = response.read(MAX_ANSWER + 1)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise unreachable(
                f"no sandbox answers at {self.url} ({reason}); start one with wactl sandbox run, or name it "
                "with --url or WAD_SANDBOX_URL",
                url=self.url,
            ) from None
        finally:
            connection.close()
        if len(data) > MAX_ANSWER:
            raise Failure(
                "protocol", f"the sandbox's answer has more than {MAX_ANSWER} bytes", t.EXIT_REFUSED
            )
        return response.status, data

    def _connection(self) -> http.client.HTTPConnection:
        if not self._secure:
            return http.client.HTTPConnection(self._host, self._port, timeout=ANSWER_S)
        try:
            context = ssl.create_default_context(cafile=self._ca_file)
        except OSError as error:
            raise usage(f"--ca-file {self._ca_file}: {error.strerror or error}") from None
        return http.client.HTTPSConnection(self._host, self._port, timeout=ANSWER_S, context=context)


def admin_options(function: _F) -> _F:
    """Add `--url` and `--ca-file`; the function gets an `Admin` as `admin`."""
    url = click.option(
        "--url",
        "admin",
        metavar="URL",
        envvar="WAD_SANDBOX_URL",
        default=DEFAULT_URL,
        callback=_admin,
        help=f"The sandbox; else WAD_SANDBOX_URL, else {DEFAULT_URL}.",
    )
    ca_file = click.option(
        "--ca-file",
        metavar="FILE",
        is_eager=True,
        expose_value=False,
        callback=_ca_file,
        help="Whom to trust for https, as a sandbox with --tls prints it.",
    )
    return url(ca_file(function))


def _ca_file(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.meta["wactl.ca_file"] = value


def _admin(context: click.Context, _parameter: click.Parameter, value: str) -> Admin:
    return Admin(value, context.meta.get("wactl.ca_file"))


def phone_path(number: str, rest: str = "") -> str:
    """The path of a phone, or of something below it."""
    return f"/admin/phones/{quote(number, safe='')}{rest}"


def show(app: App, answer: Any) -> None:
    """Write an answer of any shape: with `--json` as a document, else indented."""
    if app.as_json:
        app.out.document(answer)
        return
    text = msgspec.json.format(msgspec.json.encode(answer), indent=2).decode()
    for line in text.splitlines():
        app.out.line(clean(line))
