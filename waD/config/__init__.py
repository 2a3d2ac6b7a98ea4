"""TOML to typed, frozen settings; every fault names its file, line and key.

settings = load(None, os.environ)
settings.daemon.stop_timeout_s, settings.session("alerts").reconnect.attempts
"""

from waD.config.causes import (
    ACTIONS,
    CAUSE_IDS,
    FIXED_CAUSES,
    NEVER_REPAIR,
    OVERRIDABLE_CAUSES,
    Action,
)
from waD.config.errors import ConfigError, ConfigErrors, Place
from waD.config.loading import load
from waD.config.sections import (
    Alerts,
    Control,
    Daemon,
    Events,
    Health,
    Messages,
    Network,
    Outbox,
    Reconnect,
    Roles,
    Store,
)
from waD.config.settings import SessionSettings, Settings, Shown, diff, in_force

__all__ = [
    "ACTIONS",
    "CAUSE_IDS",
    "FIXED_CAUSES",
    "NEVER_REPAIR",
    "OVERRIDABLE_CAUSES",
    "Action",
    "Alerts",
    "ConfigError",
    "ConfigErrors",
    "Control",
    "Daemon",
    "Events",
    "Health",
    "Messages",
    "Network",
    "Outbox",
    "Place",
    "Reconnect",
    "Roles",
    "SessionSettings",
    "Settings",
    "Shown",
    "Store",
    "diff",
    "in_force",
    "load",
]
