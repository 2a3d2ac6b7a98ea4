"""Rules that concern two options at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from waD.config.schema import OPTIONS


@dataclass(frozen=True, slots=True)
class Rule:
    """A relation of two options.

    Attributes:
        key: the one that is blamed when both or none of them stand in a file.
        other: the other one.
        holds: whether the two typed values fit.
        relation: words between the two keys: "KEY relation OTHER".
    """

    key: str
    other: str
    holds: Callable[[Any, Any], bool]
    relation: str

    def problem(self, values: Mapping[str, Any], blamed: str) -> str:
        """The sentence for a broken rule, without the name of the key that is blamed."""
        subject = "" if blamed == self.key else f"{self.key} ({_text(self.key, values)}) "
        return f"{subject}{self.relation} {self.other} ({_text(self.other, values)})"


def _text(key: str, values: Mapping[str, Any]) -> str:
    value = values[key]
    return "not set" if value is None else OPTIONS[key].kind.masked(value)


def _at_most(small: Any, large: Any) -> bool:
    return bool(small <= large)


def _needs(value: Any, other: Any) -> bool:
    return value is None or other is not None


_NOT_MORE: Final = "must not be more than"

RULES: Final = (
    Rule("network.dial_timeout", "network.connect_timeout", _at_most, _NOT_MORE),
    Rule("network.hello_timeout", "network.connect_timeout", _at_most, _NOT_MORE),
    Rule("network.keepalive_jitter", "network.keepalive", lambda a, b: a < b, "must be less than"),
    Rule("network.keepalive", "health.ping_interval", _at_most, _NOT_MORE),
    Rule("network.root_key", "network.url", _needs, "is the key of another server than WhatsApp's: it needs"),
    Rule("network.push_name", "network.url", _needs, "is for test servers: it needs"),
    Rule("reconnect.base", "reconnect.max", _at_most, _NOT_MORE),
    Rule("reconnect.slow_base", "reconnect.slow_max", _at_most, _NOT_MORE),
    Rule("health.pong_late", "health.dead_after", _at_most, _NOT_MORE),
)


def broken(values: Mapping[str, Any], skip: frozenset[str]) -> Iterator[Rule]:
    """The rules that do not hold; those with a key in `skip` are not looked at."""
    for rule in RULES:
        if skip.isdisjoint((rule.key, rule.other)) and not rule.holds(values[rule.key], values[rule.other]):
            yield rule
