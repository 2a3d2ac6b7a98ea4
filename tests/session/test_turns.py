"""Turns: so many at a time, in the order of asking, and another number at a reload."""

from __future__ import annotations

import trio
import trio.testing

from waD.session.turns import LONGEST_S, Turn, Turns


async def test_so_many_at_a_time_in_order(autojump_clock: object) -> None:
    turns, taken = Turns(2), []  # type: Turns, list[int]
    held: dict[int, Turn] = {}

    async def take(number: int) -> None:
        held[number] = await turns.take()
        taken.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(take, number)
            await trio.testing.wait_all_tasks_blocked()
        assert taken == [0, 1]
        held[1].give_back()
        held[1].give_back()  # twice does no harm
        await trio.testing.wait_all_tasks_blocked()
        assert taken == [0, 1, 2]
        turns.at_once = 4
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(taken) == [0, 1, 2, 3, 4]  # two that begin at once do so in any order
        turns.at_once = 1
        assert turns.at_once == 1
        for turn in held.values():
            turn.give_back()


async def test_a_late_one_lets_the_next_begin(autojump_clock: object) -> None:
    turns = Turns(1)
    first = await turns.take()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.give_back_late)
        began = trio.current_time()
        (await turns.take()).give_back()
        assert trio.current_time() - began == LONGEST_S
