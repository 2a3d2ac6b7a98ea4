"""The table of methods. Adding one is a handler and a row here, its types in `types`, an example in `examples`.

A handler's docstring is its entry in the manual page; `python -m waD.control.manual man/waD-control.7` puts it there.

What a client's hang-up and the daemon's stop do to a method in progress is its kind:

- a `query` is cancelled when its client hangs up;
- a `wait` as well, and when the daemon stops it is answered `shutting_down` at once;
- a `command` goes on without its client, and has `Limits.drain` seconds when the daemon stops.
"""

from __future__ import annotations

import os
from typing import Final

import msgspec
import trio

from waD.control import types as t
from waD.control.api import ControlError, bad_param
from waD.control.auth_methods import AUTH_METHODS
from waD.control.method import Call, Method, row
from waD.control.repair_methods import REPAIR_METHODS
from waD.control.storage_methods import STORAGE_METHODS
from waD.control.subscriptions import shown_to


async def _connect(call: Call, params: t.SessionParams) -> t.SessionView:
    """Create the session if there is none of that name, want it up, and answer at once with the state it is in.

    In backoff and failed it tries again now.
    """
    return await call.sessions.connect(params.name)


async def _disconnect(call: Call, params: t.SessionParams) -> t.SessionView:
    """Want the session down; answer when its connection is closed. It stays paired."""
    return await call.sessions.disconnect(params.name)


async def _logout(call: Call, params: t.SessionParams) -> t.LogoutResult:
    """Unlink the device: seal its credentials in a backup, tell WhatsApp, clear them.

    Messages and events stay.
    """
    return await call.sessions.logout(params.name)


async def _remove(call: Call, params: t.SessionParams) -> t.RemoveResult:
    """Disconnect the session and retire it.

    Its history stays, and a session made by that name later is its continuation.
    """
    return await call.sessions.remove(params.name)


async def _hold(call: Call, params: t.SessionParams) -> t.SessionView:
    """Keep the session down until session.release, whatever is wanted; answer when its connection is closed.

    For maintenance: neither a restart of the daemon nor session.connect brings a held session up.
    """
    return await call.sessions.hold(params.name)


async def _release(call: Call, params: t.SessionParams) -> t.SessionView:
    """End session.hold: the session does again what is wanted, and connects if that is up."""
    return await call.sessions.release(params.name)


async def _reset(call: Call, params: t.SessionParams) -> t.SessionView:
    """Forget the counters and the last disconnect reason, and let another account be paired.

    Credentials, messages and events stay.
    """
    return await call.sessions.reset(params.name)


async def _undo(call: Call, params: t.SessionParams) -> t.UndoResult:
    """Put back the credentials that were cleared last, by a logout or the disconnect table; leave the session down.

    It works for reconnect.undo_days, on a session that is not paired; a connection that shows codes is closed. What is
    in place now is sealed first. Afterwards every conversation makes a new key exchange before it sends, and messages
    that were on their way out are held. A device that was removed on the phone cannot be brought back: WhatsApp
    refuses it at the next connection.
    """
    return await call.sessions.undo(params.name)


async def _policy(call: Call, params: t.PolicyParams) -> t.PolicyTable:
    """Answer with the disconnect table in force: what happens on each cause, and where that was set."""
    return await call.sessions.policy(params.session)


async def _config(call: Call, _params: t.NoParams) -> t.ConfigList:
    """Answer with every option in force, its value and where it was set. Passwords are masked."""
    return await call.daemon.config()


async def _check(call: Call, _params: t.NoParams) -> t.CheckReport:
    """Look at store, permissions, clock, sessions and subscribers, and answer with what was found.

    It changes nothing. On a large store it takes a while.
    """
    return await call.daemon.check()


async def _list(call: Call, _params: t.NoParams) -> t.SessionList:
    """Answer with all sessions but retired ones, by name."""
    return t.SessionList(sessions=await call.sessions.list())


async def _status(call: Call, params: t.SessionParams) -> t.SessionView:
    """Answer with the session as it is now."""
    return await call.sessions.status(params.name)


async def _qr(call: Call, params: t.SessionParams) -> t.QrResult:
    """Answer with the QR code to scan now, if there is one.

    Whoever sees it can link the account: treat it as a password.
    """
    code = await call.sessions.qr(params.name)
    return t.QrResult(session=await call.sessions.status(params.name), code=code)


async def _send(call: Call, params: t.SendRequest) -> t.SendResult:
    """Put a text message into the outbox, durably.

    It leaves as soon as the session is open, also after a restart. With an idempotency key it is safe to
    send the same request again when the answer got lost. Messages sent in a row on one connection keep
    their order.
    """
    to = _recipient("to", params.to)
    mentions = [_recipient("mentions", mention) for mention in params.mentions]
    return await call.sessions.send(msgspec.structs.replace(params, to=to, mentions=mentions))


async def _wait(call: Call, params: t.WaitParams) -> t.WaitResult:
    """Answer when the message has got as far as state, or farther."""
    with trio.move_on_after(params.timeout):
        return await call.sessions.wait(params.session, params.message_id, params.state)
    raise ControlError(
        "timeout",
        f"the message is not {params.state} after {params.timeout:g} s; it stays on its way, wait again or see "
        f"message.list",
        {"messageId": params.message_id, "wanted": params.state},
    )


async def _messages(call: Call, params: t.ListParams) -> t.MessageList:
    """Answer with a page of the history, newest first."""
    chat = None if params.chat is None else _recipient("chat", params.chat)
    return await call.sessions.messages(params.session, chat=chat, before=params.before, limit=params.limit)


async def _read(call: Call, params: t.ReadParams) -> t.ReadResult:
    """Send read receipts for messages of one chat."""
    return await call.sessions.mark_read(params.session, _recipient("chat", params.chat), params.ids)


async def _outbox(call: Call, params: t.OutboxParams) -> t.OutboxList:
    """Answer with own messages in these states, the oldest first, and how many there are.

    Without states: those that may still leave, which are queued, held or sending.
    """
    states = tuple(params.states) or t.UNFINISHED
    return await call.sessions.outbox(params.session, states=states, limit=params.limit)


async def _release_held(call: Call, params: t.DecideParams) -> t.DecideResult:
    """Put messages that are held back into the queue; they are encrypted anew and leave when the session is open.

    Messages are held when credentials were cleared, put back or restored while they were on their way. One that was
    sent already may arrive twice, under the same id.
    """
    return await call.sessions.release_held(params.session, _decided(params))


async def _cancel_unsent(call: Call, params: t.DecideParams) -> t.DecideResult:
    """End messages that are held, for good; with ids also queued ones. They stay in the history."""
    return await call.sessions.cancel_unsent(params.session, _decided(params))


async def _events(call: Call, params: t.EventsParams) -> t.EventList:
    """Answer with a page of the event log, oldest first."""
    page = await call.sessions.events(
        since=params.since, types=tuple(params.types), session=params.session, limit=params.limit
    )
    return msgspec.structs.replace(page, events=[shown_to(call.role, event) for event in page.events])


async def _subscribe(call: Call, params: t.SubscribeParams) -> t.Subscription:
    """Send the events after a cursor, and then each new one, as event notifications.

    They are durable and in order; a client that was away goes on from the last cursor it has seen. A slow
    reader holds up nobody and misses nothing that the log still holds.
    """
    subscription, begin = await call.subscriptions.open(params)
    call.after_answer.append(begin)
    return subscription


async def _unsubscribe(call: Call, params: t.UnsubscribeParams) -> t.Done:
    """End a subscription. After the answer nothing more of it comes."""
    await call.subscriptions.close(params.subscription)
    return t.Done()


async def _ping(call: Call, _params: t.NoParams) -> t.Pong:
    """Answer at once: who is there, and what role the caller has."""
    return t.Pong(pid=os.getpid(), version=call.version, protocol=t.PROTOCOL_VERSION, role=call.role)


async def _info(call: Call, _params: t.NoParams) -> t.DaemonInfo:
    """Answer with what runs here."""
    return await call.daemon.info()


async def _reload(call: Call, _params: t.NoParams) -> t.ReloadResult:
    """Read the settings again. With a fault in them nothing changes and all faults are told."""
    return await call.daemon.reload()


async def _stop(call: Call, _params: t.NoParams) -> t.Done:
    """Stop the daemon in order."""
    call.daemon.stop()  # only asks: the drain lets this answer out
    return t.Done()


def _decided(params: t.DecideParams) -> list[str] | None:
    """The ids, None for all that are held; which of both must have been said."""
    if (params.ids is None) != params.all:
        raise bad_param("ids", "either name messages by id, or say all=true for every held one")
    return params.ids


def _recipient(param: str, text: str) -> str:
    try:
        return t.parse_recipient(text)
    except ValueError as error:
        raise bad_param(param, str(error)) from None


METHODS: Final[dict[str, Method]] = {
    method.name: method
    for method in (
        row("session.connect", "command", "operator", t.SessionParams, t.SessionView, _connect),
        row("session.disconnect", "command", "operator", t.SessionParams, t.SessionView, _disconnect),
        row("session.logout", "command", "admin", t.SessionParams, t.LogoutResult, _logout),
        row("session.remove", "command", "admin", t.SessionParams, t.RemoveResult, _remove),
        row("session.hold", "command", "operator", t.SessionParams, t.SessionView, _hold),
        row("session.release", "command", "operator", t.SessionParams, t.SessionView, _release),
        row("session.reset", "command", "operator", t.SessionParams, t.SessionView, _reset),
        row("session.undo", "command", "admin", t.SessionParams, t.UndoResult, _undo),
        row("session.list", "query", "observer", t.NoParams, t.SessionList, _list),
        row("session.status", "query", "observer", t.SessionParams, t.SessionView, _status),
        row("session.qr", "query", "operator", t.SessionParams, t.QrResult, _qr),
        row("message.send", "command", "operator", t.SendRequest, t.SendResult, _send, in_order=True),
        row("message.wait", "wait", "observer", t.WaitParams, t.WaitResult, _wait),
        row("message.list", "query", "observer", t.ListParams, t.MessageList, _messages),
        row("message.read", "command", "operator", t.ReadParams, t.ReadResult, _read),
        row("outbox.list", "query", "observer", t.OutboxParams, t.OutboxList, _outbox),
        row("outbox.release", "command", "operator", t.DecideParams, t.DecideResult, _release_held),
        row("outbox.cancel", "command", "operator", t.DecideParams, t.DecideResult, _cancel_unsent),
        row("events.list", "query", "observer", t.EventsParams, t.EventList, _events),
        row("events.subscribe", "query", "observer", t.SubscribeParams, t.Subscription, _subscribe),
        row("events.unsubscribe", "query", "observer", t.UnsubscribeParams, t.Done, _unsubscribe),
        row("policy.show", "query", "observer", t.PolicyParams, t.PolicyTable, _policy),
        row("config.show", "query", "admin", t.NoParams, t.ConfigList, _config),
        row("daemon.ping", "query", "observer", t.NoParams, t.Pong, _ping),
        row("daemon.info", "query", "observer", t.NoParams, t.DaemonInfo, _info),
        row("daemon.check", "query", "operator", t.NoParams, t.CheckReport, _check),
        row("daemon.reload", "command", "admin", t.NoParams, t.ReloadResult, _reload),
        row("daemon.stop", "command", "admin", t.NoParams, t.Done, _stop),
        *AUTH_METHODS,
        *REPAIR_METHODS,
        *STORAGE_METHODS,
    )
}
