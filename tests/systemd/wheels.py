"""Wheels made of the packages that the running environment has, so that an installation needs no network."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LEFT_OUT = ("INSTALLER", "REQUESTED", "direct_url.json", "RECORD")
"""Files of a dist-info that an installation adds, and the list that is made anew."""


def closure(*names: str) -> dict[str, Distribution]:
    """The installed distributions of these names and all that they require here."""
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        found[name] = distribution(name)
        wanted = map(Requirement, found[name].requires or ())
        waiting += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def repack(installed: Distribution, directory: Path) -> Path:
    """Make a wheel of an installed distribution; programs outside its packages are not in it."""
    assert isinstance(installed, PathDistribution)
    files = list(_files(installed))
    info = next(name.partition("/")[0] for name, _ in files if name.endswith(".dist-info/METADATA"))
    target = directory / f"{info.removesuffix('.dist-info')}-{_tag(installed)}.whl"
    rows = io.StringIO()
    table = csv.writer(rows, lineterminator="\n")
    with zipfile.ZipFile(target, "w") as wheel:
        for name, path in files:
            wheel.write(path, name)
            table.writerow((name, "", ""))
        table.writerow((f"{info}/RECORD", "", ""))
        wheel.writestr(f"{info}/RECORD", rows.getvalue())
    return target


def _files(installed: Distribution) -> Iterator[tuple[str, Path]]:
    for file in installed.files or ():
        if ".." not in file.parts and file.suffix != ".pyc" and file.name not in LEFT_OUT:
            yield file.as_posix(), Path(str(file.locate()))


def _tag(installed: Distribution) -> str:
    """The compressed tag of a file name, from the tags in the wheel's own description."""
    described = (installed.read_text("WHEEL") or "").splitlines()
    tags = [line.removeprefix("Tag: ").split("-") for line in described if line.startswith("Tag: ")]
    return "-".join(".".join(sorted(set(part))) for part in zip(*tags, strict=True))
