"""What only shows when the items of a device are seen together: two addresses of one device, changed identities.

The store files every device under its LID when that is known, and would not look under the phone number any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from waD.e2ee import groups
from waD.e2ee.address import DOMAIN_HOSTED_LID, DOMAIN_HOSTED_PN, DOMAIN_LID, DOMAIN_PN, SignalAddress
from waD.e2ee.session import archive_current, merge
from waD.link.credentials import Credentials
from waD.messaging import kinds
from waD.transfer.sources.signal import SignalItems
from waD.transfer.state import Report

_LID_DOMAIN: Final = {DOMAIN_PN: DOMAIN_LID, DOMAIN_HOSTED_PN: DOMAIN_HOSTED_LID}


def file_under_lids(items: SignalItems, lid_of: Mapping[str, str]) -> None:
    """Move everything of phone numbers whose LID is known; the LID's open session stays open (chapter 08 §2.7)."""
    for old in [*items.sessions]:
        new = _lid_address(old, lid_of)
        if new is not None:
            joined = merge(items.sessions.get(new), items.sessions.pop(old))
            if joined is not None:
                items.sessions[new] = joined
    for old in [*items.identities]:
        new = _lid_address(old, lid_of)
        if new is not None:
            items.identities.setdefault(new, items.identities.pop(old))
    for group, old in [*items.sender_keys]:
        new = _lid_address(old, lid_of)
        if new is not None:
            joined_key = groups.merge(
                items.sender_keys.get((group, new)), items.sender_keys.pop((group, old))
            )
            if joined_key is not None:
                items.sender_keys[group, new] = joined_key


def check_identities(items: SignalItems, creds: Credentials, report: Report, now_ms: int) -> None:
    """Believe the account's own key for our phone, and archive sessions of replaced identities (§5.4 items 5, 6)."""
    for own in (creds.me_lid, creds.me_pn):
        if own is None or creds.account_key is None:
            continue
        phone = SignalAddress(own.user, own.signal_domain, 0)
        if items.identities.get(phone, creds.account_key) != creds.account_key:
            items.identities[phone] = creds.account_key
            report.warn(
                "primary_identity_mismatch", f"{kinds.IDENTITY}/{phone}", "replaced by the key of the account"
            )
    for address, record in items.sessions.items():
        current = record.current
        known = items.identities.get(address)
        if current is not None and known is not None and current.remote_identity != known:
            items.sessions[address] = archive_current(record, now_ms)
            report.warn(
                "identity_mismatch", f"{kinds.SESSION}/{address}", "archived: the identity has changed"
            )


def drop_useless_own_keys(items: SignalItems, creds: Credentials, report: Report) -> None:
    """Drop own sender keys that cannot sign: a new one is made with the next message to the group."""
    own = {(jid.user, jid.device) for jid in (creds.me_lid, creds.me_pn) if jid is not None}
    for group, author in [*items.sender_keys]:
        if (author.user, author.device) not in own:
            continue
        record = items.sender_keys[group, author]
        if not record.states or record.states[0].private is None:
            del items.sender_keys[group, author]
            name = f"{kinds.SENDER_KEY}/{group}|{author}"
            report.warn("sender_key_invalid", name, "our own, without its private key")


def _lid_address(address: SignalAddress, lid_of: Mapping[str, str]) -> SignalAddress | None:
    domain = _LID_DOMAIN.get(address.domain)
    lid = lid_of.get(address.user)
    return None if domain is None or lid is None else SignalAddress(lid, domain, address.device)
