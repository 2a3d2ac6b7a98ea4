"""The tables of waD-control(7), made from the types: `python -m waD.control.manual man/waD-control.7`.

The page is written by hand but for what stands between its BEGIN and END lines; this rewrites those parts.
"""

from __future__ import annotations

import functools
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import inspect as mi

from waD.control import types as t
from waD.control.examples import EXAMPLES, NOTICES
from waD.control.method import Method
from waD.control.methods import METHODS
from waD.control.settings import Limits

_INDENT: Final = 2
_WIDTH: Final = 78
_TYPICAL: Final[dict[type[mi.Type], str]] = {
    mi.StrType: "string",
    mi.IntType: "integer",
    mi.FloatType: "number",
    mi.BoolType: "boolean",
    mi.BytesType: "base64",
    mi.NoneType: "null",
    mi.DictType: "object",
    mi.AnyType: "anything",
}
_ENDINGS: Final = {
    "query": "Cancelled when the client hangs up.",
    "wait": "Cancelled when the client hangs up or the daemon stops.",
    "command": "Finished also when the client hangs up.",
}


def render(page: str) -> str:
    """Return the page with its generated parts made anew.

    Raises:
        ValueError: the page lacks the place for one of them.
    """
    for name, make in SECTIONS.items():
        pattern = re.compile(rf'(\.\\" BEGIN {name}[^\n]*\n).*?(\.\\" END {name}\n)', re.DOTALL)
        body = "".join(line + "\n" for line in make())
        page, found = pattern.subn(lambda match, body=body: match[1] + body + match[2], page)  # type: ignore[misc]
        if found != 1:
            raise ValueError(f"the page has {found} places for {name!r}, there must be one")
    return page


def _methods() -> Iterator[str]:
    for method in METHODS.values():
        yield from _method(method)


def _method(method: Method) -> Iterator[str]:
    params, result = EXAMPLES[method.name]
    yield f".Ss {method.name}"
    yield _summary(method)
    yield _ENDINGS[method.kind]
    yield "Role:"
    yield f".Sy {method.needs} ."
    fields = list(_fields(method.params))
    if fields:
        yield from _table(fields)
        yield ".Pp"
    yield f"Answer: {_name(method.result)}."
    yield from _exchange(
        {"jsonrpc": "2.0", "id": 1, "method": method.name, "params": _brief(params)},
        {"jsonrpc": "2.0", "id": 1, "result": _brief(result)},
    )


def _types() -> Iterator[str]:
    for struct in _answers():
        yield f".Ss {_name(struct)}"
        yield _text(_head(struct))
        yield from _table(_fields(struct))


def _notices() -> Iterator[str]:
    for name, params in NOTICES.items():
        yield f".Ss {name}"
        yield _text(_head(type(params)))
        yield from _table(_fields(type(params)))
        yield from _exchange({"jsonrpc": "2.0", "method": name, "params": _brief(params)})


def _errors() -> Iterator[str]:
    yield '.Bl -column "storage_unavailable" "-32000" "Exit"'
    yield ".It Sy symbol Ta Sy code Ta Sy exit Ta Sy meaning"
    for symbol, kind in t.ERRORS.items():
        yield f".It {symbol} Ta {_text(str(kind.code))} Ta {kind.exit} Ta {_text(kind.meaning)}"
    yield ".El"


def _roles() -> Iterator[str]:
    yield ".Bl -tag -width operator"
    for role in t.ROLE_RANK:
        yield f".It Sy {role}"
        names = [method.name for method in METHODS.values() if method.needs == role]
        yield from (f".Ic {name} ," for name in names[:-1])
        yield f".Ic {names[-1]}"
    yield ".El"


def _limits() -> Iterator[str]:
    limits = Limits()
    yield f"A request line has at most {t.MAX_LINE} bytes."
    yield f"A page of a list has at most {t.MAX_PAGE} rows,"
    yield ".Ic message.read"
    yield f"takes at most {t.MAX_IDS} ids,"
    yield ".Ic message.wait"
    yield f"lasts at most {t.MAX_WAIT:.0f} seconds."
    yield "Unless the settings say otherwise, one user has at most"
    yield f"{limits.connections_per_uid} connections and all users together {limits.connections};"
    yield f"one connection runs {limits.requests} requests at a time (further ones wait, unread)"
    yield f"and has {limits.subscriptions} subscriptions."
    yield f"A client that takes nothing of what is sent to it for {limits.write_timeout:.0f} seconds is cut off."
    yield "When the daemon stops, commands in progress have"
    yield f"{limits.drain:.0f} seconds to finish."


SECTIONS: Final[dict[str, Callable[[], Iterator[str]]]] = {
    "roles": _roles,
    "limits": _limits,
    "methods": _methods,
    "notices": _notices,
    "types": _types,
    "errors": _errors,
}


def _summary(method: Method) -> str:
    """What a method does, from the one place where it is said: the docstring of its handler."""
    return _text(" ".join((method.handler.__doc__ or "").split()))


def _answers() -> list[type[msgspec.Struct]]:
    """All structs that answers are made of, in the order in which they turn up."""
    found: dict[type[msgspec.Struct], None] = {}

    def visit(kind: Any) -> None:
        if isinstance(kind, mi.StructType):
            if kind.cls not in found and kind.cls not in map(type, NOTICES.values()):
                found[kind.cls] = None
            for field in kind.fields:
                visit(field.type)
        elif isinstance(kind, mi.UnionType):
            for inner in kind.types:
                visit(inner)
        elif isinstance(kind, mi.ListType):
            visit(kind.item_type)

    for method in METHODS.values():
        visit(mi.type_info(method.result))
    for notice in NOTICES.values():
        visit(mi.type_info(type(notice)))
    return list(found)


def _fields(struct: type[msgspec.Struct]) -> Iterator[tuple[str, str, str]]:
    """Name, type and explanation of each field."""
    described = _attributes(struct)
    info = mi.type_info(struct)
    assert isinstance(info, mi.StructType)
    for field in info.fields:
        kind = _kind(field.type)
        if struct.__struct_config__.forbid_unknown_fields:
            kind += ", required" if field.required else _default(field)
        yield field.encode_name, kind, described.get(field.name, "")


def _default(field: mi.Field) -> str:
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return "" if value is None or value == [] else f", default {msgspec.json.encode(value).decode()}"


def _kind(kind: mi.Type) -> str:
    match kind:
        case mi.StructType(cls=cls):
            return _name(cls)
        case mi.UnionType(types=types):
            return " or ".join(_kind(inner) for inner in types)
        case mi.LiteralType(values=values):
            return " | ".join(str(value) for value in values)
        case mi.ListType(item_type=item, min_length=low, max_length=high):
            return f"array of {_kind(item)}{_range(low, high, 'entries')}"
        case mi.StrType(min_length=low, max_length=high):
            return f"string{_range(low, high, 'characters')}"
        case mi.IntType(ge=low, le=high):
            return f"integer{_range(low, high, '')}"
        case mi.FloatType(gt=low, le=high):
            return f"number{_range(low, high, '')}"
    return _TYPICAL[type(kind)]


def _range(low: float | None, high: float | None, unit: str) -> str:
    if high is None:
        return ""
    text = f"{low:.0f} to {high:.0f} {unit}" if low else f"up to {high:.0f} {unit}"
    return f" ({text.rstrip()})"


def _name(struct: type[msgspec.Struct]) -> str:
    return struct.__name__


def _head(struct: type[msgspec.Struct]) -> str:
    """The part of a docstring before its attributes, without its references to the notes."""
    return _plain((struct.__doc__ or "").split("Attributes:")[0])


def _attributes(struct: type[msgspec.Struct]) -> dict[str, str]:
    """The explanations of fields, by name."""
    _, _, text = (struct.__doc__ or "").partition("Attributes:")
    found = re.findall(r"^ {8}(\w+): (.*(?:\n {9,}.*)*)", text, re.MULTILINE)
    return {name: _plain(words) for name, words in found}


def _plain(text: str) -> str:
    """A docstring's words as the reader of the page knows them: JSON's names, no chapters, no backticks."""
    text = re.sub(r" ?\(chapter [^)]*\)|^Chapter [^:]*: ", "", text)
    text = re.sub(r"`(\w+)`", lambda match: _json_names().get(match[1], match[1]), text)
    return " ".join(text.replace("`", "").split())


@functools.cache
def _json_names() -> dict[str, str]:
    """What fields of the types are called on the wire."""
    structs = [
        value for value in vars(t).values() if isinstance(value, type) and issubclass(value, msgspec.Struct)
    ]
    return {field.name: field.encode_name for struct in structs for field in msgspec.structs.fields(struct)}


def _text(text: str) -> str:
    r"""Escape for roff, one sentence a line; `\&` keeps a leading dot or quote from being a request."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    sentences = re.split(r"(?<=[.?!]) (?=[A-Z])", escaped)
    lines = [
        line for sentence in sentences for line in textwrap.wrap(sentence, _WIDTH, break_on_hyphens=False)
    ]
    return "\n".join(f"\\&{line}" if line[:1] in (".", "'") else line for line in lines)


def _table(rows: Any) -> Iterator[str]:
    yield '.Bl -tag -width "reconnectAttempt" -compact'
    for name, kind, words in rows:
        yield f".It Va {name}"
        yield f".Pq {_text(kind)}"
        if words:
            yield _text(words)
    yield ".El"


def _brief(struct: msgspec.Struct) -> Any:
    """A struct as JSON without the fields that are at their defaults."""
    shown = {}
    for field in msgspec.structs.fields(type(struct)):
        value = getattr(struct, field.name)
        if field.required or value != _default_of(field):
            shown[field.encode_name] = _brief_value(value)
    return shown


def _default_of(field: msgspec.structs.FieldInfo) -> Any:
    if field.default is not msgspec.NODEFAULT:
        return field.default
    return field.default_factory()


def _brief_value(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return _brief(value)
    if isinstance(value, list):
        return [_brief_value(item) for item in value]
    return value


def _exchange(request: dict[str, Any], answer: dict[str, Any] | None = None) -> Iterator[str]:
    """A line out, and what comes back, laid out for reading."""
    yield ".Bd -literal -offset indent"
    yield _code(_pretty(request))
    if answer:
        yield _code(_pretty(answer))
    yield ".Ed"


def _pretty(document: dict[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(document), indent=_INDENT).decode()


def _code(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-")


def main(arguments: list[str]) -> int:
    """Rewrite the pages named on the command line."""
    for name in arguments:
        page = Path(name)
        page.write_text(render(page.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
