"""Holders of leases: whether the process that a text names is gone for sure."""

from __future__ import annotations

import os
import subprocess
import sys

from waD.session.holders import is_gone, own_holder


def changed(holder: str, at: int, text: str) -> str:
    parts = holder.split("/")
    parts[at] = text
    return "/".join(parts)


def dead_pid() -> str:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return str(done.pid)


def test_each_start_is_another_holder() -> None:
    assert own_holder() != own_holder()
    assert own_holder().split("/")[1] == str(os.getpid())


def test_a_dead_process_of_this_boot_is_gone() -> None:
    assert is_gone(changed(own_holder(), 1, dead_pid()))


def test_an_earlier_life_of_this_number_is_gone() -> None:
    assert is_gone(own_holder())


def test_a_living_one_is_not() -> None:
    assert not is_gone(changed(own_holder(), 1, str(os.getppid())))


def test_nobody_is_declared_dead_on_another_machine_or_in_another_boot() -> None:
    dead = changed(own_holder(), 1, dead_pid())
    assert not is_gone(changed(dead, 0, "elsewhere"))
    assert not is_gone(changed(dead, 2, "another-boot.1"))
    assert not is_gone(changed(dead, 2, ""))


def test_other_texts_say_nothing() -> None:
    for text in ("", "pid 7 on host", "a/b/c/d", "a/1/c", "a/99999999999999999999/c/d"):
        assert not is_gone(text)
