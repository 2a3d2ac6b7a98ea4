"""WhatsApp sessions as a Unix service: the daemon."""

from typing import Final

__version__: Final = "0.1.0"
"""Of the daemon and of `wactl`; the package takes it from here."""
