"""Kinds of items in the auth state, and what their keys are (chapter 08 §1.2)."""

from __future__ import annotations

from typing import Final

PREKEY: Final = "prekey"
"""A one-time prekey by its decimal id."""
SESSION: Final = "session"
"""A pairwise record by the Signal address of the device."""
IDENTITY: Final = "identity"
"""The 32-byte identity key of a device by its Signal address."""
SENDER_KEY: Final = "sender-key"
"""A sender key by `group|Signal address of the author's device`."""
LID_OF_PN: Final = "lid-of-pn"
"""User part of the LID by the user part of the phone number."""
PN_OF_LID: Final = "pn-of-lid"
"""User part of the phone number by the user part of the LID."""
DEVICES: Final = "device-list"
"""Device list by the canonical bare address of the account."""
RETRY: Final = "retry"
"""Counters of retries: those we asked for and those we answered, by key texts of their owners."""
IDENTITY_CHANGE: Final = "identity-change"
"""By the Signal address of a phone: `told` while a change is announced but not proved, else when it was proved, ms."""
APP_STATE_KEY: Final = "app-state-key"
"""A key of the app state as its protobuf, by the hexadecimal key id."""
