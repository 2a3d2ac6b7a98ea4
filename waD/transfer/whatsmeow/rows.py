"""The queries: what one device has in a whatsmeow database, of any version of the schema (chapter 08 §4.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from waD.transfer.sources.errors import SourceRefused
from waD.transfer.sources.message_secrets import MAX_SECRETS
from waD.transfer.sources.rows import Row
from waD.transfer.whatsmeow.source import (
    MAX_RECORD,
    MAX_ROWS,
    MAX_TOTAL_SIZE,
    MAX_VALUE,
    NEWEST_VERSION,
    Source,
    schema_version,
)
from waD.wire.errors import JIDError
from waD.wire.jid import JID

DEVICE_COLUMNS: Final = (
    "jid", "lid", "facebook_uuid", "registration_id", "noise_key", "identity_key", "signed_pre_key",
    "signed_pre_key_id", "signed_pre_key_sig", "adv_key", "adv_details", "adv_account_sig", "adv_account_sig_key",
    "adv_device_sig", "platform", "business_name", "push_name", "lid_migration_ts", "companion_meta_nonce",
)  # fmt: skip
_NUMBERS: Final = frozenset(
    {"registration_id", "signed_pre_key_id", "lid_migration_ts", "key_id_number", "uploaded", "timestamp",
     "version", "sender_timestamp"}
)  # fmt: skip
_RECORDS: Final = frozenset({"session", "sender_key"})
_AGAIN: Final = "this program has no table for them, and the phone sends them again with the app state"
LEFT: Final = {
    "whatsmeow_contacts": _AGAIN,
    "whatsmeow_chat_settings": _AGAIN,
    "whatsmeow_event_buffer": "they name neither chat nor author nor message: those that the old program had not "
    "handled are lost, and those that it had are recognised by their used keys when they come again",
    "whatsmeow_retry_buffer": "texts of the last week for devices that could not read them, which no backup carries "
    "either: such a device gets no answer, and shows that a message is missing",
}
"""Tables that are only counted, and why."""
_SECRETS: Final = "whatsmeow_message_secrets"
_OLD_AGENT: Final = re.compile(r"([0-9]+)\.0(?=[:@])", re.ASCII)
"""The form of own addresses before version 5 of the schema."""


@dataclass(frozen=True, slots=True)
class Device:
    """One linked device of a database: its address as stored, and the names that tell it from others."""

    jid: str
    lid: str = ""
    push_name: str = ""
    business_name: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class DeviceRows:
    """All that was read for one device, not judged yet; holds private keys.

    Attributes:
        device: columns of its row; those an older schema lacks are None.
        version: version of the schema, 0 when unknown.
        identities: (address, key).
        prekeys: (id, private key, uploaded).
        sessions: (address, record).
        sender_keys: (group, address, record).
        app_state_keys: (id, key, timestamp, fingerprint).
        app_state_versions: (collection, version, hash).
        app_state_macs: (collection, version, index MAC, value MAC).
        tokens: (address, token, timestamp, timestamp of the sender).
        secrets: (chat, author, message id, secret), the newest `MAX_SECRETS`.
        older_secrets: how many more there are.
        salt: salt for privacy tokens.
        lid_map: (LID user, PN user) of those that occur here, or of all.
        left: rows of tables that are not taken, by table.
        connected: other clients of the database.
    """

    device: Mapping[str, object]
    version: int
    identities: Sequence[Row] = ()
    prekeys: Sequence[Row] = ()
    sessions: Sequence[Row] = ()
    sender_keys: Sequence[Row] = ()
    app_state_keys: Sequence[Row] = ()
    app_state_versions: Sequence[Row] = ()
    app_state_macs: Sequence[Row] = ()
    tokens: Sequence[Row] = ()
    secrets: Sequence[Row] = ()
    older_secrets: int = 0
    salt: object = None
    lid_map: Sequence[Row] = ()
    left: Mapping[str, int] = field(default_factory=dict)
    connected: int = 0

    def __repr__(self) -> str:
        return f"DeviceRows({len(self.sessions)} sessions)"

    @property
    def schema_newer(self) -> bool:
        """Whether the schema is newer than what this program knows, but says that it can be read."""
        return self.version > NEWEST_VERSION


def list_devices(source: Source, users: Source | None = None) -> list[Device]:
    """The linked devices of a database, ordered by address.

    Args:
        source: the database with the keys.
        users: the database that gives devices names: wuzapi's table `users` or Evolution Go's `instances`.

    Raises:
        SourceRefused: not a database of whatsmeow, too new, or unreadable.
    """
    schema_version(source)
    names = {} if users is None else _names(users)
    wanted = ("jid", "lid", "push_name", "business_name")
    found = []
    for row in _Reader(source).select("whatsmeow_device", wanted):
        jid, lid, push_name, business_name = (value if isinstance(value, str) else "" for value in row)
        found.append(Device(jid, lid, push_name, business_name, names.get(current_form(jid), "")))
    return sorted(found, key=lambda device: device.jid)


def choose_device(devices: Sequence[Device], wanted: str | None) -> Device:
    """The device of an address: with device number, or without if only one fits; the only one for None.

    Raises:
        SourceRefused: `devices_several` or `device_unknown`, with the addresses there are.
    """
    choices = tuple(device.jid for device in devices)
    fitting = [device for device in devices if wanted is None or _fits(device, wanted)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise SourceRefused(
            "devices_several", f"{len(fitting)} devices are in the database: name one by --jid", choices
        )
    if not devices:
        raise SourceRefused(
            "device_unknown", "no device is in the database: nothing was ever linked, or all was"
        )
    raise SourceRefused(
        "device_unknown", f"none of the {len(devices)} devices in the database has that address", choices
    )


def read_device(
    source: Source, device: Device, *, keys: Source | None = None, all_mappings: bool = False
) -> DeviceRows:
    """Read everything of one device.

    Args:
        source: the database.
        device: one of `list_devices`.
        keys: GOWA's second database; identities, sessions, prekeys, sender keys, tokens and secrets are read there.
        all_mappings: take the whole LID map, which all devices of the database share.

    Raises:
        SourceRefused: damaged, or larger than any real one.
    """
    version = max(schema_version(source), 0 if keys is None else schema_version(keys))
    first = _Reader(source, device.jid)
    second = first if keys is None else _Reader(keys, device.jid)
    row = next(iter(first.owned("whatsmeow_device", DEVICE_COLUMNS, "jid")), None)
    if row is None:
        raise SourceRefused(
            "source_changed", "the device is gone from the database: stop what uses it, try again"
        )
    identities = second.owned("whatsmeow_identity_keys", ("their_id", "identity"))
    sessions = second.owned("whatsmeow_sessions", ("their_id", "session"))
    sender_keys = second.owned("whatsmeow_sender_keys", ("chat_id", "sender_id", "sender_key"))
    tokens = second.owned("whatsmeow_privacy_tokens", ("their_jid", "token", "timestamp", "sender_timestamp"))
    secrets = second.newest(_SECRETS, ("chat_jid", "sender_jid", "message_id", "key"), MAX_SECRETS)
    users = {user for row in (*identities, *sessions) for user in _user(row[0])}
    users |= {user for row in sender_keys for user in _user(row[1])}
    users |= {user for row in tokens for user in _user(row[0])}
    users |= {user for row in secrets for address in row[:2] for user in _user(address)}
    for table, column in (("whatsmeow_contacts", "their_jid"), ("whatsmeow_chat_settings", "chat_jid")):
        users |= {user for row in first.owned(table, (column,)) for user in _user(row[0])}
    users |= {user for value in (device.jid, device.lid) for user in _user(value)}
    salts = first.owned("whatsmeow_nct_salt", ("salt",))
    return DeviceRows(
        device=dict(zip(DEVICE_COLUMNS, row, strict=True)),
        version=version,
        identities=identities,
        prekeys=second.owned("whatsmeow_pre_keys", ("key_id AS key_id_number", "key", "uploaded"), "jid"),
        sessions=sessions,
        sender_keys=sender_keys,
        app_state_keys=first.owned(
            "whatsmeow_app_state_sync_keys", ("key_id", "key_data", "timestamp", "fingerprint"), "jid"
        ),
        app_state_versions=first.owned("whatsmeow_app_state_version", ("name", "version", "hash"), "jid"),
        app_state_macs=first.owned(
            "whatsmeow_app_state_mutation_macs", ("name", "version", "index_mac", "value_mac"), "jid"
        ),
        tokens=tokens,
        secrets=secrets,
        older_secrets=max(0, second.count(_SECRETS) - MAX_SECRETS),
        salt=salts[0][0] if salts else None,
        lid_map=first.mappings(None if all_mappings else users),
        left={table: first.count(table) for table in LEFT},
        connected=max(source.connected, 0 if keys is None else keys.connected),
    )


def current_form(jid: str) -> str:
    """An own address as version 5 of the schema writes it."""
    return _OLD_AGENT.sub(r"\1", jid, count=1)


class _Reader:
    """Reads what exists of the tables, within limits."""

    def __init__(self, source: Source, jid: str = "") -> None:
        self._source = source
        self._jid = jid
        self._size = 0

    def select(self, table: str, columns: Sequence[str], condition: str = "", *parameters: str) -> list[Row]:
        """All rows; a column that does not exist is None, and so is a value larger than any real one."""
        return [*self._stream(table, columns, condition, *parameters)]

    def owned(self, table: str, columns: Sequence[str], owner: str = "our_jid") -> list[Row]:
        """The rows of the device; none when the table does not exist."""
        if not self._has_owner(table, owner):
            return []
        return self.select(table, columns, f"WHERE {owner} = ?", self._jid)

    def newest(self, table: str, columns: Sequence[str], most: int) -> list[Row]:
        """The same, so many of those that were written last."""
        if not self._has_owner(table, "our_jid"):
            return []
        order = f"WHERE our_jid = ? ORDER BY {self._source.place} DESC LIMIT {most}"
        return self.select(table, columns, order, self._jid)

    def count(self, table: str) -> int:
        """How many rows of the device a table has."""
        if not self._has_owner(table, "our_jid"):
            return 0
        query = f"SELECT count(*) FROM {table} WHERE our_jid = ?"  # noqa: S608
        (found,) = next(self._source.rows(query, (self._jid,)))
        return found if isinstance(found, int) else 0

    def mappings(self, users: set[str] | None) -> list[Row]:
        """Pairs of the LID map whose one half is among the users, or all; the others are not kept in memory."""
        if not self._source.columns("whatsmeow_lid_map"):
            return []
        rows = self._stream("whatsmeow_lid_map", ("lid", "pn"), limited=users is None)
        return [row for row in rows if users is None or row[0] in users or row[1] in users]

    def _has_owner(self, table: str, owner: str) -> bool:
        known = self._source.columns(table)
        if known and owner not in known:
            raise SourceRefused("source_damaged", f"the table {table} has no column {owner}")
        return bool(known)

    def _stream(
        self, table: str, columns: Sequence[str], condition: str = "", *parameters: str, limited: bool = True
    ) -> Iterator[Row]:
        known = self._source.columns(table)
        wanted = ", ".join(self._expression(column, known) for column in columns)
        query = f"SELECT {wanted} FROM {table} {condition}"  # noqa: S608 - names come from this module
        for number, row in enumerate(self._source.rows(query, parameters)):
            if limited:
                self._check_limits(table, number + 1, row)
            yield row

    def _expression(self, column: str, known: frozenset[str]) -> str:
        name, _, alias = column.partition(" AS ")
        if name not in known:
            return "NULL"
        if (alias or name) in _NUMBERS:
            return name
        if name == "facebook_uuid":
            return f"CAST({name} AS TEXT)"
        limit = MAX_RECORD if name in _RECORDS else MAX_VALUE
        return f"CASE WHEN {self._source.size(name)} <= {limit} THEN {name} END"

    def _check_limits(self, table: str, number: int, row: Row) -> None:
        self._size += sum(len(value) for value in row if isinstance(value, bytes | str))
        if number > MAX_ROWS or self._size > MAX_TOTAL_SIZE:
            raise SourceRefused(
                "source_too_large",
                f"more than {MAX_ROWS} rows in {table}, or more than {MAX_TOTAL_SIZE >> 20} MiB for one device",
            )


def _user(address: object) -> Iterator[str]:
    """The user part of `user[_agent]:device`, `user[:device]@server`."""
    if isinstance(address, str):
        user = re.split("[@:_.]", address, maxsplit=1)[0]
        if user:
            yield user


def _fits(device: Device, wanted: str) -> bool:
    try:
        address, other = JID.parse(current_form(device.jid)), JID.parse(current_form(wanted))
        lid = JID.parse(device.lid) if device.lid else None
    except JIDError:
        return device.jid == wanted
    return any(own is not None and other in (own, own.bare) for own in (address, lid))


def _names(users: Source) -> dict[str, str]:
    """Names by own address, from the tables of the programs that keep several devices."""
    found: dict[str, str] = {}
    for table in ("instances", "users"):
        if {"name", "jid"} <= users.columns(table):
            for name, jid in _Reader(users).select(table, ("name", "jid")):
                if isinstance(name, str) and isinstance(jid, str) and name and jid:
                    found[current_form(jid)] = name
    return found
