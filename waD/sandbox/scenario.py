"""Push names that choose a behaviour: `restricted:NAME`, `scenario:FLAG,FLAG=0:NAME` (chapter 07 §2.4)."""

from __future__ import annotations

import re
from typing import Final

DEFAULTS: Final[dict[str, bool]] = {
    "restricted": False,
    "tc_enabled": True,
    "cs_enabled": True,
    "nct_send_ab": False,
    "nct_history_ab": False,
    "nct_syncd_ab": False,
    "nct_history_delivery": False,
    "nct_syncd_delivery": False,
}

_SCENARIO: Final = re.compile(r"scenario:(?P<flags>[a-z_]+(?:=[01])?(?:,[a-z_]+(?:=[01])?)*):.*", re.DOTALL)


def parse_flags(push_name: str) -> tuple[dict[str, bool], list[str]]:
    """Return the flags of an account with that push name, and the names of flags that are not known.

    A name that does not follow the grammar is an ordinary name with the defaults.
    """
    text = push_name
    if text.startswith("restricted:"):
        text = f"scenario:{text}"
    flags = dict(DEFAULTS)
    unknown: list[str] = []
    match = _SCENARIO.fullmatch(text)
    if match is None:
        return flags, unknown
    for item in match["flags"].split(","):
        name, _, value = item.partition("=")
        if name in flags:
            flags[name] = value != "0"
        else:
            unknown.append(name)
    return flags, unknown
