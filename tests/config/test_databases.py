"""The URL of a database server: what is accepted, and that a password in it is never shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from waD.config import load
from waD.config.databases import DatabaseUrl, has_password
from waD.config.errors import ConfigErrors
from waD.config.kinds import Problem
from waD.session.retention import store_settings

SECRET = "hunter2"
KIND = DatabaseUrl()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://h/d", "postgresql://h/d"),
        ("postgres://u@h:5432/d?sslmode=verify-full", "postgres://u@h:5432/d?sslmode=verify-full"),
        ("postgresql:///d?host=/run/postgresql", "postgresql:///d?host=/run/postgresql"),
        ("postgresql://u@[::1]:5432,b:6543,c/d", "postgresql://u@[::1]:5432,b:6543,c/d"),
        ("postgresql://", "postgresql://"),
        (f"postgresql://u:{SECRET}@h/d", "postgresql://u:***@h/d"),
        (f"postgresql://:{SECRET}@h/d", "postgresql://:***@h/d"),
        (f"postgresql://u@h/d?password={SECRET}&x=1", "postgresql://u@h/d?password=***&x=1"),
        (f"postgresql://h/d?x=1&sslpassword={SECRET}", "postgresql://h/d?x=1&sslpassword=***"),
        (f"postgresql://u:{SECRET}@h/d?password={SECRET}", "postgresql://u:***@h/d?password=***"),
    ],
)
def test_urls(url: str, shown: str) -> None:
    assert KIND.parse(url) == url
    assert KIND.masked(url) == f'"{shown}"'
    assert has_password(url) == (SECRET in url)


@pytest.mark.parametrize(
    "raw",
    [
        "",
        5,
        "mysql://h/d",
        f"postgresql://u:{SECRET}@h:port/d",
        f"postgresql://u:{SECRET}@h:0/d",
        f"postgresql://u:{SECRET}@h:99999/d",
        f"postgresql://u:{SECRET}@[::1/d",
        f"postgresql://u:{SECRET}@h/d#x",
        f"postgresql://u:{SECRET}@more@h/d",
        f"postgresql://u:{SECRET} @h/d",
        f"postgresql://u:{SECRET}@h/d\n",
        f"host=h password={SECRET}",
        "postgresql://" + "h" * 5000,
    ],
)
def test_what_is_refused_is_not_repeated(raw: object) -> None:
    with pytest.raises(Problem, match=r"must be a URL: postgresql://") as refused:
        KIND.parse(raw)
    assert SECRET not in str(refused.value)


def write(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    file = tmp_path / "waD.toml"
    file.write_text(text)
    file.chmod(mode)
    return file


def test_a_password_that_every_user_can_read_is_warned_about(tmp_path: Path) -> None:
    text = f"[store]\nurl = 'postgresql://u:{SECRET}@h/d'\n"
    settings = load(write(tmp_path, text, 0o644), {})
    (warning,) = settings.warnings
    assert "chmod o-r" in str(warning)
    assert "store.url" in str(warning)
    assert SECRET not in repr(settings) + repr(settings.store) + str(warning)
    assert not any(SECRET in shown.value for shown in settings.show())
    assert load(write(tmp_path, text, 0o600), {}).warnings == ()
    assert load(write(tmp_path, "store.url = 'postgresql://u@h/d'", 0o644), {}).warnings == ()
    with pytest.raises(ConfigErrors) as refused:
        load(write(tmp_path, f"store.url = 'postgresql://u:{SECRET}@h:x/d'"), {})
    assert SECRET not in str(refused.value)


def test_what_the_store_is_given(tmp_path: Path) -> None:
    credential = tmp_path / "wad-postgres-password"
    credential.write_text(SECRET)
    plain = store_settings(load(write(tmp_path, ""), {}), str(tmp_path))
    assert plain.postgres is None
    assert not plain.legacy
    settings = load(write(tmp_path, "[store]\nurl = 'postgresql://u@h/d'\nconnections = 7\n"), {})
    chosen = store_settings(settings, str(tmp_path))
    assert chosen.postgres is not None
    assert (chosen.postgres.password_file, chosen.postgres.connections) == (credential, 7)
    assert not chosen.postgres.unsafe_durability
    assert chosen.legacy
    told = store_settings(settings, None, unsafe_durability=True)
    assert told.postgres is not None
    assert told.postgres.unsafe_durability
    assert told.postgres.password_file is None
    named = "[store]\nurl = 'postgresql://u@h/d'\npassword_file = '/x'\nunsafe_durability = true\nlegacy = 'off'\n"
    own = store_settings(load(write(tmp_path, named), {}), str(tmp_path))
    assert own.postgres is not None
    assert own.postgres.password_file == Path("/x")
    assert own.postgres.unsafe_durability
    assert not own.legacy
    assert os.fspath(own.path)
