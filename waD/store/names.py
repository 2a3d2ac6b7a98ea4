"""What a session may be called."""

from __future__ import annotations

import re
from typing import Final

SESSION_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
NAME_RULE: Final = "1 to 64 letters, digits, dots, dashes and underscores, no sign first"
