"""Files on their way over the control socket: without a name, bounded in number and time."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from waD.session.spool import LIFE_S, MAX_FILES, NoSuchFile, Spool, SpoolFull


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(tmp_path / "spool")
    yield made
    made.close()


async def test_an_upload_in_parts(spool: Spool, tmp_path: Path) -> None:
    file_id, size = await spool.append(None, b"one ")
    assert (re.fullmatch("[0-9a-f]{32}", file_id) is not None, size) == (True, 4)
    assert await spool.append(file_id, b"two") == (file_id, 7)
    assert await spool.append(file_id, b"") == (file_id, 7)
    assert await spool.part(file_id, 0, 5) == (b"one t", False)
    assert await spool.part(file_id, 5, 5) == (b"wo", True)
    assert await spool.part(file_id, 99, 5) == (b"", True)
    directory = tmp_path / "spool"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert [*directory.iterdir()] == []


async def test_a_finished_file_loses_its_name(spool: Spool) -> None:
    path = spool.prepare() / "made"
    path.write_bytes(b"archive")
    file_id = spool.adopt(path, 7, session="x")
    assert not path.exists()
    assert spool.get(file_id).about == {"session": "x"}
    assert await spool.part(file_id, 0, 100) == (b"archive", True)
    spool.discard(file_id)
    spool.discard(file_id)
    with pytest.raises(NoSuchFile):
        await spool.part(file_id, 0, 1)


async def test_unknown_ids(spool: Spool) -> None:
    for work in (spool.part("0" * 32, 0, 1), spool.append("0" * 32, b"x")):
        with pytest.raises(NoSuchFile):
            await work


async def test_files_that_nobody_asks_for_are_forgotten(
    spool: Spool, autojump_clock: trio.testing.MockClock
) -> None:
    file_id, _ = await spool.append(None, b"x")
    other, _ = await spool.append(None, b"y")
    await trio.sleep(LIFE_S - 1)
    assert await spool.part(file_id, 0, 1) == (b"x", True)
    await trio.sleep(2)
    with pytest.raises(NoSuchFile, match="10 minutes"):
        spool.get(other)
    assert spool.get(file_id).size == 1


async def test_there_is_an_end_to_their_number(spool: Spool, autojump_clock: trio.testing.MockClock) -> None:
    for _ in range(MAX_FILES):
        await spool.append(None, b"x")
    with pytest.raises(SpoolFull, match="a few minutes"):
        await spool.append(None, b"x")
    with pytest.raises(SpoolFull):
        spool.make_room()
    await trio.sleep(LIFE_S + 1)
    spool.make_room()
    await spool.append(None, b"x")


async def test_a_file_that_grows_too_large(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("waD.session.spool.MAX_SIZE", 5)
    file_id, _ = await spool.append(None, b"12345")
    with pytest.raises(SpoolFull):
        await spool.append(file_id, b"6")
    assert spool.get(file_id).size == 5


async def test_parts_that_come_at_once_do_not_mix(spool: Spool) -> None:
    file_id, _ = await spool.append(None, b"")
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(spool.append, file_id, bytes([number]) * 1000)
    data, end = await spool.part(file_id, 0, 20_000)
    assert (len(data), end) == (10_000, True)
    assert all(len({*data[at : at + 1000]}) == 1 for at in range(0, 10_000, 1000))


async def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """An archive in the making had a name; one that another process is still making is younger."""
    directory = tmp_path / "spool"
    directory.mkdir()
    old, young, other = (directory / name for name in ("backup-a.part", "backup-b.part", "notes"))
    for path in (old, young, other):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    os.utime(other, (0, 0))
    Spool(directory).prepare()
    assert {*directory.iterdir()} == {young, other}


async def test_all_are_closed_at_the_end(spool: Spool) -> None:
    file_id, _ = await spool.append(None, b"x")
    file = spool.get(file_id).file
    spool.close()
    assert file.closed
    with pytest.raises(NoSuchFile):
        spool.get(file_id)
