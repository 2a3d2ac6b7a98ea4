"""How far messages come, as numbers of the store's `STATUS_NUMBERS`."""

from __future__ import annotations

from typing import Final

from waD.store.model import STATUS_NUMBERS

ERROR: Final = STATUS_NUMBERS["error"]
SENT: Final = STATUS_NUMBERS["sent"]
DELIVERED: Final = STATUS_NUMBERS["delivered"]
READ: Final = STATUS_NUMBERS["read"]
PLAYED: Final = STATUS_NUMBERS["played"]
