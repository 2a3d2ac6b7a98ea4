"""The manual page says what the code does, and what it tells a script to do works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio

from tests.control.client import Running, serving
from waD.control import types as t
from waD.control.examples import EXAMPLES, NOTICES
from waD.control.manual import main, render
from waD.control.methods import METHODS

PAGE = Path(__file__).resolve().parents[2] / "man" / "waD-control.7"
SOURCE = PAGE.read_text()


def test_the_page_is_up_to_date() -> None:
    assert render(SOURCE) == SOURCE, "run: python -m waD.control.manual man/waD-control.7"


def test_the_page_is_rewritten_in_place(tmp_path: Path) -> None:
    page = tmp_path / "page.7"
    page.write_text(SOURCE.replace(".Ss daemon.ping\n", ""))
    assert main([str(page)]) == 0
    assert page.read_text() == SOURCE


def test_a_page_without_room_for_the_tables_is_refused() -> None:
    with pytest.raises(ValueError, match="'errors'"):
        render(SOURCE.replace('.\\" BEGIN errors', ""))


@pytest.mark.parametrize("name", [*METHODS, *NOTICES])
def test_every_method_and_notification_has_its_entry(name: str) -> None:
    assert f"\n.Ss {name}\n" in SOURCE


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_described_and_listed_with_its_role(name: str) -> None:
    assert METHODS[name].handler.__doc__
    roles = SOURCE[SOURCE.index("BEGIN roles") : SOURCE.index("END roles")]
    listed = roles.split(f".It Sy {METHODS[name].needs}\n")[1].split(".It")[0]
    assert re.search(rf"^\.Ic {re.escape(name)}( ,)?$", listed, re.MULTILINE)


@pytest.mark.parametrize("symbol", t.ERRORS)
def test_every_error_is_in_the_table(symbol: t.Symbol) -> None:
    assert f".It {symbol} Ta \\{t.ERRORS[symbol].code} Ta {t.ERRORS[symbol].exit} " in SOURCE


@pytest.mark.parametrize("name", METHODS)
def test_every_example_is_a_possible_exchange(name: str) -> None:
    params, result = EXAMPLES[name]
    for example, wanted in ((params, METHODS[name].params), (result, METHODS[name].result)):
        assert type(example) is wanted
        assert msgspec.json.decode(msgspec.json.encode(example), type=wanted) == example


def test_there_are_no_examples_of_nothing() -> None:
    assert EXAMPLES.keys() == METHODS.keys()


@pytest.mark.parametrize(
    "command",
    [["mandoc", "-T", "lint", "-W", "warning"], ["groff", "-mdoc", "-ww", "-Tutf8", "-z"]],
    ids=lambda command: command[0],
)
def test_the_page_renders_without_warnings(command: list[str]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed here")
    done = subprocess.run([*command, str(PAGE)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("", "")


# ------------------------------------------------------------------------------------------------ examples


def scripts() -> list[str]:
    """The shell snippets of the page's EXAMPLES, as a reader sees them."""
    examples = SOURCE[SOURCE.index(".Sh EXAMPLES") :]
    blocks = re.findall(r"^\.Bd -literal -offset indent\n(.*?)^\.Ed$", examples, re.DOTALL | re.MULTILINE)
    return [block.replace("\\-", "-").replace("\\e", "\\") for block in blocks]


needs_tools = pytest.mark.skipif(
    not all(map(shutil.which, ("socat", "jq", "sh"))), reason="the examples are made of socat and jq"
)


def script(running: Running, number: int) -> str:
    ask = scripts()[0].replace("/run/waD/control.sock", str(running.path))
    return ask + scripts()[number]


@needs_tools
async def test_a_script_lists_sessions(running: Running) -> None:
    done = await trio.run_process(["sh", "-ec", script(running, 1)], capture_stdout=True)
    assert done.stdout == b"alerts open\n"


@needs_tools
async def test_a_script_sends_and_waits(running: Running) -> None:
    done = await trio.run_process(["sh", "-ec", script(running, 2)], capture_stdout=True)
    assert msgspec.json.decode(done.stdout)["state"] == "delivered"
    sent = next(argument for name, argument in running.sessions.calls if name == "send")
    assert (sent.to, sent.text) == ("15550000002", f"disk full on {os.uname().nodename}")


@needs_tools
async def test_a_script_follows_events_and_remembers_how_far(tmp_path: Path) -> None:
    cursor = tmp_path / "cursor"
    cursor.write_text("1\n")
    async with serving(tmp_path) as running, trio.open_nursery() as nursery:
        for _ in range(3):
            running.sessions.log.append()
        process = await nursery.start(
            partial(trio.run_process, ["sh", "-ec", script(running, 3)], cwd=tmp_path, stdout=subprocess.PIPE)
        )
        with trio.fail_after(30):
            seen = b""
            while seen.count(b"\n") < 2:
                seen += await process.stdout.receive_some()
        running.server.stop()  # ends the subscription, and the script with it
        await process.wait()
    assert [msgspec.json.decode(line)["cursor"] for line in seen.splitlines()] == [2, 3]
    assert cursor.read_text() == "3\n"


def test_the_generator_runs_by_itself(tmp_path: Path) -> None:
    page = tmp_path / "page.7"
    page.write_text(SOURCE)
    subprocess.run([sys.executable, "-m", "waD.control.manual", str(page)], check=True, cwd=PAGE.parents[1])
    assert page.read_text() == SOURCE
