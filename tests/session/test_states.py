"""The table of states, and the manual that is made from it."""

from __future__ import annotations

from typing import get_args

import pytest

from waD.control.types import NEXT_STEP, State
from waD.session import states
from waD.session.manual import PAGE, manual
from waD.session.policy import STATE_AFTER
from waD.session.states import LIVE, MEANINGS, STATES, TRANSITIONS, IllegalTransition, check
from waD.store.model import SessionStatus


def test_the_states_are_those_of_the_control_protocol() -> None:
    assert set(STATES) == set(get_args(State)) == set(MEANINGS) == set(NEXT_STEP)


def test_transitions_join_known_states_and_none_to_itself() -> None:
    for source, target in TRANSITIONS:
        assert source in STATES
        assert target in STATES
        assert source != target
    assert not any(target == "new" for _, target in TRANSITIONS)


@pytest.mark.parametrize("source", STATES)
def test_from_every_state_the_operator_can_stop_and_connect(source: SessionStatus) -> None:
    if source != "stopped":
        check(source, "stopped")
    if source not in LIVE:
        check(source, "connecting")


@pytest.mark.parametrize("source", STATES)
@pytest.mark.parametrize("target", STATES)
def test_check_allows_what_the_table_has(source: SessionStatus, target: SessionStatus) -> None:
    if source == target or (source, target) in TRANSITIONS:
        check(source, target)
    else:
        with pytest.raises(IllegalTransition, match=f"{source} to {target}"):
            check(source, target)


def test_every_action_has_a_way_from_a_connection_being_made() -> None:
    for target in STATE_AFTER.values():
        check("connecting", target)


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == manual(), "make it anew: python -m waD.session.manual"


def test_the_page_follows_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "TRANSITIONS", {})
    assert PAGE.read_text() != manual()
