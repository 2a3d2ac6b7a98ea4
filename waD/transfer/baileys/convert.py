"""From the items of a Baileys store to an auth state: pure (chapter 08 §2.9)."""

from __future__ import annotations

from waD.messaging import kinds
from waD.messaging.records import BARE_LIDS_KEY
from waD.store.canonical import canonical
from waD.transfer.baileys.account_items import (
    import_app_state,
    import_lid_map,
    import_memory,
    import_tokens,
    lid_map_items,
    old_app_state_keys,
)
from waD.transfer.baileys.credentials import ImportedCreds, import_credentials
from waD.transfer.baileys.message_store import import_secrets
from waD.transfer.baileys.signal_items import (
    documents,
    import_signal_items,
    learn_identities,
    may_hold_lids,
    name_lids,
    next_prekey_id,
)
from waD.transfer.baileys.source import BaileysItems
from waD.transfer.sources.merging import check_identities, drop_useless_own_keys, file_under_lids
from waD.transfer.state import AuthState, Report


def convert(source: BaileysItems, now_ms: int) -> tuple[AuthState | None, Report]:
    """Convert and check what a reader found.

    Args:
        source: one session.
        now_ms: current Unix time in ms; stands for times that the format has not.

    Returns:
        The state, and everything that was dropped, repaired or refused; no state when the report has an error.
    """
    report = Report([*source.notes])
    if source.creds is None:
        if report.ok:
            report.error("creds_unreadable", "creds", "there are no credentials")
        return None, report
    imported = import_credentials(source.creds, report, now_ms)
    if imported is None or not report.ok:
        return None, report
    return _convert(old_app_state_keys(source.creds, source), imported, report, now_ms), report


def _convert(source: BaileysItems, imported: ImportedCreds, report: Report, now_ms: int) -> AuthState:
    creds = imported.creds
    signal = import_signal_items(source, imported, report, now_ms)
    lid_of = import_lid_map(source, creds, report)
    own = frozenset() if creds.me_lid is None else frozenset({creds.me_lid.user})
    name_lids(signal, (frozenset(lid_of.values()) | own) - lid_of.keys())
    file_under_lids(signal, lid_of)
    learn_identities(signal)
    check_identities(signal, creds, report, now_ms)
    drop_useless_own_keys(signal, creds, report)
    items = dict(documents(signal)) | lid_map_items(lid_of) | import_app_state(source, report)
    items |= import_memory(source, report) | import_tokens(source, lid_of, report)
    numbers = lid_of.keys() | (set() if creds.me_pn is None else {creds.me_pn.user})
    if may_hold_lids(signal, numbers):
        items[kinds.BARE_LIDS, BARE_LIDS_KEY] = canonical(True)
    following = next_prekey_id(imported.next_prekey_id, signal.prekeys)
    secrets = import_secrets(source.secrets, creds, lid_of, now_ms)
    return AuthState(creds.change(next_prekey_id=following), items, secrets)
