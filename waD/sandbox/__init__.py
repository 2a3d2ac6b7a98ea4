"""A WhatsApp server with simulated phones on loopback, for trying and testing without a phone (chapter 07)."""

from __future__ import annotations

from waD.sandbox.environment import Environment, Settings
from waD.sandbox.errors import SandboxError
from waD.sandbox.sandbox import Sandbox, run_sandbox, trio_clock

__all__ = ["Environment", "Sandbox", "SandboxError", "Settings", "run_sandbox", "trio_clock"]
