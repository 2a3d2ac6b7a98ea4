"""Whom a message is for: from what people write to the one address it is filed under and the one on the wire.

Chapter 06 §1.3 for numbers, chapter 04 §13.4 for the choice between phone number and LID.
"""

from __future__ import annotations

from waD.link.errors import MalformedReply
from waD.link.stanzas import Requester
from waD.link.usync import NumberAnswer, NumberError, check_numbers, parse_number
from waD.messaging import kinds
from waD.messaging.content import ContentError, ContentFault
from waD.messaging.context import Context
from waD.messaging.values import decode_text, encode_text
from waD.store.unit import Unit
from waD.wire.errors import JIDError
from waD.wire.jid import JID, PN


class NotOnWhatsApp(Exception):  # noqa: N818 - a fact about the number
    """The server says that this number has no account."""


class NoWireAddress(Exception):  # noqa: N818 - names the thing
    """A person is known by LID only, and our own LID is not known: no namespace fits both."""


def parse_person(text: str, fault: ContentFault = "bad_recipient") -> JID:
    """Read a phone number or the address of a person.

    Raises:
        ContentError: with the code `fault`, when it is neither; groups and lists cannot be written to yet.
    """
    try:
        if "@" not in text:
            return JID(parse_number(text), PN)
        jid = JID.parse(text).account
    except (NumberError, JIDError) as refusal:
        raise ContentError(
            fault, f"{refusal}; give a phone number or an address such as NUMBER@{PN}"
        ) from None
    if not jid.is_user or jid.is_bot:
        raise ContentError(fault, f"messages go to people only, not to an address on {jid.server!r}")
    if jid.is_pn:
        return parse_person(jid.user, fault)
    return jid


async def canonical(context: Context, person: JID, unit: Unit | None = None) -> JID:
    """The address a person is filed under, with WhatsApp's own spelling of the number if that was learned."""
    if person.is_pn and await context.addresses.lid_of(person, unit) is None:
        alias = await context.state.item(kinds.NUMBER_ALIAS, person.user, unit)
        if alias is not None:
            person = JID(decode_text(alias), PN)
    return await context.addresses.canonical(person, unit)


async def wire_address(
    context: Context, person: JID, unit: Unit | None = None, *, by_number: bool = False
) -> JID:
    """The bare address that goes on the wire in a direct message.

    Args:
        context: whose message.
        person: any address of the recipient.
        unit: changes under construction.
        by_number: prefer the phone number, after the server refused the LID.

    Raises:
        NoWireAddress: only the LID is known, and our own is not.
    """
    lid = await context.addresses.lid_of(person, unit)
    pn = await context.addresses.pn_of(person, unit)
    creds = context.account.creds if unit is None else context.account.changed_in(unit)
    if pn is not None and (lid is None or creds.me_lid is None or by_number or not creds.lid_migrated):
        return pn
    if lid is None or creds.me_lid is None:
        raise NoWireAddress("this person is known by LID only, and the own LID is not known yet")
    return lid


async def in_namespace(context: Context, person: JID, chat: JID, unit: Unit | None = None) -> JID:
    """A person as the members of a chat know them: by LID in a chat by LID, else by number, if it is known."""
    form = context.addresses.lid_of if chat.is_lid else context.addresses.pn_of
    return await form(person, unit) or person.account


async def known(context: Context, person: JID, unit: Unit | None = None) -> bool:
    """Whether it is known that a person has an account, so that the server need not be asked."""
    if not person.is_pn or context.account.is_own(person):
        return True
    if await context.addresses.lid_of(person, unit) is not None:
        return True
    return await context.state.item(kinds.DEVICES, str(person.account), unit) is not None


async def look_up(context: Context, person: JID, connection: Requester) -> JID:
    """Ask the server about a number, store what it says, and return the canonical address.

    Rows filed under the number as it was written move to that address in the same unit.

    Raises:
        NotOnWhatsApp: it has no account.
        MalformedReply: the server did not say.
        RequestError, RequestTimeout, Disconnected: no usable answer.
        StoreError: nothing was stored.
    """
    (answer,) = await check_numbers(connection, [person.user])
    if answer.on_whatsapp is None:
        raise MalformedReply("the directory did not answer for the number asked for")
    if not answer.on_whatsapp:
        raise NotOnWhatsApp("the number is not on WhatsApp")
    async with context.state.lock:
        unit = context.state.unit()
        found = await _store(context, unit, person, answer)
        await context.state.commit(unit)
    return found


async def _store(context: Context, unit: Unit, person: JID, answer: NumberAnswer) -> JID:
    pn = answer.jid or person.account
    if answer.lid is not None:
        await context.addresses.learn(unit, pn, answer.lid, "live")
    if pn != person.account:
        unit.put(kinds.NUMBER_ALIAS, person.user, encode_text(pn.user))
    found = await context.addresses.canonical(pn, unit)
    if found != person.account:
        unit.move_person(str(person.account), str(found))
    return found
