"""Lines of keys, checked against the parser: every key it finds has a line, and the right one."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waD.config.scan import MAX_DEPTH, key_lines

DOCUMENT = '''\
# comment with [brackets] and a = 1
top = 1
dotted.inner . leaf = "a # b"  # [no]

[table]
plain = """
fake = 1
[fake]
"""
quotes = """ends with a quote""""
literal = \'\'\'
x = "\'\'\'
"quoted.key" = 2
'single' = 3
array = [
  1, # two = 2
  [2, 3],
  "]",
]
inline = { a = 1, "b" = { c = "}" }, d.e = 2 }
[ table . "sub table" ]
after = 2024-01-01T00:00:00Z
[[items]]
x = 1
[[items]]
x = 2
[last]
escaped = "\\\\"
end = true
'''

LINES = {
    ("top",): 2,
    ("dotted",): 3,
    ("dotted", "inner", "leaf"): 3,
    ("table",): 5,
    ("table", "plain"): 6,
    ("table", "quotes"): 10,
    ("table", "literal"): 11,
    ("table", "quoted.key"): 13,
    ("table", "single"): 14,
    ("table", "array"): 15,
    ("table", "inline", "a"): 20,
    ("table", "inline", "b", "c"): 20,
    ("table", "inline", "d", "e"): 20,
    ("table", "sub table"): 21,
    ("table", "sub table", "after"): 22,
    ("items",): 23,
    ("last", "escaped"): 28,
    ("last", "end"): 29,
}


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_every_form_of_key_has_its_line(ending: str) -> None:
    text = DOCUMENT.replace("\n", ending)
    tomllib.loads(text)
    lines = key_lines(text)
    assert {keys: lines.of(keys) for keys in LINES} == LINES
    assert ("fake",) not in lines.first
    assert ("table", "fake") not in lines.first
    assert ("table", "two") not in lines.first


def test_a_key_without_a_line_has_that_of_its_table() -> None:
    assert key_lines("\n[a]\n").of(("a", "b", "c")) == 2
    assert key_lines("\n[a]\n").of(("b",)) == 0


def test_second_assignments_are_found_and_items_of_arrays_are_not() -> None:
    lines = key_lines("a = 1\n[t]\nb = [{x = 1}, {x = 2}]\n[[l]]\nc = 1\n[[l]]\nc = 1\n[t]\nb = 2\n")
    assert lines.again == {("t",): 8, ("t", "b"): 9}


def test_deep_nesting_ends_the_look_inside() -> None:
    text = "a = " + "[" * 5000 + "]" * 5000 + "\nb = 1\n"
    assert key_lines(text).of(("b",)) == 2
    assert MAX_DEPTH < 100


@given(st.text(alphabet="ab.=[]{}\"'\\#,\n\r \t1", max_size=60) | st.text(max_size=40))
def test_any_text_is_scanned_to_the_end(text: str) -> None:
    lines = key_lines(text)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.first.values())


_NAMES = st.text(alphabet="abc-_9", min_size=1, max_size=3) | st.text(min_size=1, max_size=4).filter(
    lambda name: not any(0xD800 <= ord(letter) < 0xE000 for letter in name)
)
_FILLERS = st.sampled_from(
    [
        "",
        "# x = 1",
        'k0 = """\n[x]\n"""',
        "k0 = '''\ny = 2'''",
        "k0 = [\n1,\n]",
        'k0 = { q = "\\"}" }',
        'k0 = "#"',
    ]
)


def _key(name: str) -> str:
    return '"' + "".join(f"\\U{ord(letter):08x}" for letter in name) + '"'


@given(st.lists(st.tuples(_NAMES, _NAMES, _FILLERS), max_size=6, unique_by=lambda item: item[0]))
def test_lines_agree_with_a_document_built_line_by_line(items: list[tuple[str, str, str]]) -> None:
    text = ""
    wanted: dict[tuple[str, ...], int] = {}
    for table, name, filler in items:
        if name == "k0":
            continue
        wanted[(table,)] = text.count("\n") + 1
        text += f"[{_key(table)}]\n{filler}\n"
        wanted[(table, name)] = text.count("\n") + 1
        text += f"{_key(name)} = 1\n"
    tomllib.loads(text)
    lines = key_lines(text)
    assert {keys: lines.of(keys) for keys in wanted} == wanted
    assert lines.again == {}
