"""How a recipient is written."""

from __future__ import annotations

from typing import Final

from waD.control.types.words import MAX_ADDRESS

MIN_DIGITS: Final = 7
MAX_DIGITS: Final = 15


def parse_recipient(text: str) -> str:
    """Bring a phone number or an address into the form the daemon takes.

    A number may hold spaces, dots, dashes, brackets and a leading `+`; 7 to 15 digits without a leading zero
    remain (chapter 06 §1.3). Text with an `@` is an address and is passed on as it is.

    Raises:
        ValueError: it is neither; the message says why.
    """
    text = text.strip()
    if "@" in text:
        user, _, server = text.partition("@")
        odd = not (user and server) or "@" in server or " " in text or not text.isprintable()
        if odd or len(text) > MAX_ADDRESS:
            raise ValueError("not an address; expected for example 15550000002@s.whatsapp.net")
        return text
    digits = text.removeprefix("+").translate(_NUMBER_PUNCTUATION)
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError("neither a phone number nor an address; expected for example +15550000002")
    if digits.startswith("0"):
        raise ValueError("the number starts with 0; write it in international form, for example +15550000002")
    if not MIN_DIGITS <= len(digits) <= MAX_DIGITS:
        raise ValueError(
            f"a phone number has {MIN_DIGITS} to {MAX_DIGITS} digits, this one has {len(digits)}"
        )
    return digits


_NUMBER_PUNCTUATION: Final = str.maketrans("", "", " .-()/\u00a0\u202f")
