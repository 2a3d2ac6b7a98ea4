from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waD.transfer.baileys import names

GROUP = "120363000000000041@g.us"

SPELLINGS = [
    ("pre-key-12", ("pre-key", "12")),
    ("pre-key-012", ("pre-key", "12")),
    ("session-5511900000002.0", ("session", "5511900000002.0")),
    ("session-100000000000042_1.3", ("session", "100000000000042_1.3")),
    ("session-5511900000002-0", ("session", "5511900000002.0")),
    ("session-100_129-99", ("session", "100_129.99")),
    ("identity-key-100_1.0", ("identity-key", "100_1.0")),
    ("identity-key-100_1-0", ("identity-key", "100_1.0")),
    (f"sender-key-{GROUP}--100_1--2", ("sender-key", f"{GROUP}::100_1::2")),
    (f"sender-key-{GROUP}::100_1::2", ("sender-key", f"{GROUP}::100_1::2")),
    ("sender-key-120363@g-us::100::2", ("sender-key", "120363@g.us::100::2")),
    ("sender-key-5511-1580000000@g.us--55::1--0", None),
    ("sender-key-5511-1580000000@g.us--55--0", ("sender-key", "5511-1580000000@g.us::55::0")),
    ("sender-key-status@broadcast--55--0", ("sender-key", "status@broadcast::55::0")),
    ("sender-key-15800@broadcast--55--0", ("sender-key", "15800@broadcast::55::0")),
    (f"sender-key-memory-{GROUP}", ("sender-key-memory", GROUP)),
    ("sender-key-memory-5511-15800@g-us", ("sender-key-memory", "5511-15800@g.us")),
    ("app-state-sync-key-AAD__777__", ("app-state-sync-key", "AAD/777/")),
    ("app-state-sync-key-AAD/777/", ("app-state-sync-key", "AAD/777/")),
    ("app-state-sync-version-regular_high", ("app-state-sync-version", "regular_high")),
    ("lid-mapping-5511", ("lid-mapping", "5511")),
    ("lid-mapping-100_reverse", ("lid-mapping", "100_reverse")),
    ("device-list-100", ("device-list", "100")),
    ("tctoken-100@lid", ("tctoken", "100@lid")),
    ("tctoken-100-5@lid", ("tctoken", "100:5@lid")),
    ("tctoken-100:5@lid", ("tctoken", "100:5@lid")),
    ("tctoken-55@s-whatsapp-net", ("tctoken", "55@s.whatsapp.net")),
    ("tctoken-__index", ("tctoken", "__index")),
    ("contacts-tc-token-100@lid", ("tctoken", "100@lid")),
]


@pytest.mark.parametrize(("spelling", "name"), SPELLINGS)
def test_every_spelling_is_read(spelling: str, name: tuple[str, str] | None) -> None:
    if name is None:
        with pytest.raises(names.NameRefused):
            names.read_name(spelling)
    else:
        assert names.read_name(spelling) == name


@pytest.mark.parametrize("spelling", [text for text, name in SPELLINGS if name is not None])
def test_a_name_that_was_read_is_found_again_under_its_file(spelling: str) -> None:
    name = names.read_name(spelling)
    assert names.read_name(names.file_name(*name).removesuffix(".json")) == name
    assert names.read_id(*name) == name[1]


@pytest.mark.parametrize(
    "name",
    [
        "mystery-1", "creds", "", "session-", "session-55", "session-55.256", "session-../../etc.0",
        "pre-key-x", "pre-key-123456789", "pre-key--1", "sender-key-a@g.us--1", f"sender-key-{GROUP}--1_7--0",
        "sender-key-memory-nobody", "app-state-sync-version-../x", "lid-mapping-abc", "tctoken-x",
        "device-list-1@lid", "app-state-sync-key-?", "session-" + "1" * 600 + ".0",
    ],
)  # fmt: skip
def test_what_is_no_name_is_refused_without_being_repeated(name: str) -> None:
    with pytest.raises(names.NameRefused) as refusal:
        names.read_name(name)
    assert len(name) < 3 or name not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("creds", ("", "creds")),
        ("five:creds", ("five:", "creds")),
        ("five:auth_creds", ("five:", "creds")),
        ("keyv:five:creds", ("keyv:five:", "creds")),
        (f"five:sender-key-{GROUP}::100_1::2", ("five:", f"sender-key-{GROUP}::100_1::2")),
        ("a:session-1:session-2.0", ("a:", "session-1:session-2.0")),
        ("five:pre-key-7", ("five:", "pre-key-7")),
        ("credse", None),
        ("five-creds", None),
        ("x" * 600, None),
    ],
)
def test_what_stands_in_front_is_cut_off(name: str, parts: tuple[str, str] | None) -> None:
    assert names.split_prefix(name) == parts


users = st.text("0123456789", min_size=1, max_size=15)
devices = st.integers(0, 99).map(str)
addresses = st.builds("{}{}.{}".format, users, st.sampled_from(["", "_1", "_128", "_129"]), devices)
groups = st.one_of(
    users.map("{}@g.us".format), st.builds("{}-{}@g.us".format, users, users), st.just("status@broadcast")
)


@given(groups, addresses)
def test_sender_keys_survive_the_names_of_files(group: str, address: str) -> None:
    text = "::".join((group, *address.rsplit(".", 1)))
    name = names.read_name(names.file_name("sender-key", text).removesuffix(".json"))
    assert name == ("sender-key", text)
    found = names.sender_key_parts(name[1])
    assert (str(found[0]), found[1].text) == (group, address)


@given(st.text())
def test_no_text_does_anything_but_be_refused(text: str) -> None:
    for name in (text, *(f"{kind}-{text}" for kind in names.TYPES)):
        try:
            kind, found = names.read_name(name)
        except names.NameRefused:
            continue
        assert names.read_id(kind, found) == found
    assert names.shown(text).isascii()
