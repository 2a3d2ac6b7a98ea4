from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from waD.config import ConfigErrors, Settings, load

Write = Callable[..., Path]
Load = Callable[[str], Settings]
Faults = Callable[[str], list[str]]


@pytest.fixture
def main_file(tmp_path: Path) -> Path:
    return tmp_path / "waD.toml"


@pytest.fixture
def loaded(main_file: Path) -> Load:
    """Settings of one file with the given text."""

    def read(text: str) -> Settings:
        main_file.write_text(text)
        return load(main_file, {"HOME": "/home/u"})

    return read


@pytest.fixture
def faults(main_file: Path) -> Faults:
    """What is wrong with one file with the given text, as `LINE: KEY: PROBLEM`."""

    def read(text: str) -> list[str]:
        main_file.write_text(text)
        with pytest.raises(ConfigErrors) as caught:
            load(main_file, {"HOME": "/home/u"})
        prefix = f"{main_file}:"
        lines = str(caught.value).splitlines()
        assert len(lines) == len(caught.value.errors)
        assert all(line.startswith(prefix) for line in lines)
        return [line.removeprefix(prefix) for line in lines]

    return read
