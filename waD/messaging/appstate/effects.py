"""What follows from mutations besides their being kept (chapter 05 §4.15)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from waD.e2ee.syncd.mutations import Mutation, Operation
from waD.messaging.account import Account
from waD.messaging.appstate.keys import AppStateKeys
from waD.messaging.stanza import clean_name
from waD.store.unit import Unit

PUSH_NAME: Final = "setting_pushName"
SENTINEL: Final = "sentinel"
VERSIONS: Final = {PUSH_NAME: 1, SENTINEL: 3}
"""Actions that are acted upon, with the newest version of each that is understood."""


def matters(mutation: Mutation) -> bool:
    """Whether something follows from a mutation."""
    if mutation.operation is not Operation.SET or mutation.value is None or not mutation.parts:
        return False
    return mutation.version <= VERSIONS.get(mutation.parts[0], -1)


async def apply(unit: Unit, mutations: Iterable[Mutation], account: Account, keys: AppStateKeys) -> None:
    """Act on mutations that matter in their order, as part of the unit that stores them.

    Raises:
        StoreError: the state could not be read.
    """
    for mutation in mutations:
        if mutation.value is None or not mutation.parts:
            continue
        if mutation.parts[0] == PUSH_NAME:
            _rename(unit, clean_name(mutation.value.pushNameSetting.name), account)
        elif mutation.value.HasField("keyExpiration"):
            await keys.expire(unit, mutation.value.keyExpiration.expiredKeyEpoch)


def _rename(unit: Unit, name: str, account: Account) -> None:
    if name and name != account.changed_in(unit).push_name:
        account.change_in(unit, lambda creds: creds.change(push_name=name))
