"""Plays the main job and checks every step; ends with 0 only if all of it went as it should."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

from demo.baileys import Baileys
from demo.stage import DemoError, Stage, say, show, until
from tests.interop import npm

OWN: Final = "+15550000001"
BOB: Final = "+15550000002"
CAROL: Final = "+15550000003"
SESSION: Final = "alerts"


def link(stage: Stage) -> None:
    """Step 1: a code in the terminal, a phone that scans it, an open session."""
    say("A session is linked by scanning its code with the phone of +1 555 000 0001.")
    stage.run("wactl", "sandbox", "phone", OWN, "--name", "Night shift")
    with stage.beside("wactl", "connect", SESSION):
        until("the code", lambda: stage.quiet("wactl", "qr", SESSION, "--raw", "--once").returncode == 0)
        code = stage.quiet("wactl", "qr", SESSION, "--raw", "--once").stdout.strip()
        show(["wactl", "sandbox", "scan", OWN, "-"], "   # the phone looks at the code above")
        if stage.quiet("wactl", "sandbox", "scan", OWN, "-", text=code).returncode:
            raise DemoError("the phone could not scan the code")


def talk_to_a_phone(stage: Stage) -> None:
    """Step 2: another account's phone, both ways."""
    say("A second account's phone gets a message and answers it.")
    stage.run("wactl", "sandbox", "phone", BOB, "--name", "Bob", "--auto-reply", "on my way: {text}")
    stage.run("wactl", "send", SESSION, BOB, "disk full on db1", "--wait", "delivered")
    until("the answer", lambda: "on my way: disk full on db1" in bodies(stage))
    stage.run("wactl", "tail-events", SESSION, "--type", "message:new", "--since", "0", "--no-follow")


def talk_to_baileys(stage: Stage) -> None:
    """Step 2, continued: a client that nobody here wrote."""
    say("A third account is linked by Baileys from npm, another implementation of the protocol.")
    try:
        baileys = Baileys(stage)
    except npm.Unavailable as missing:
        say(f"Baileys is left out: {missing}")
        return
    try:
        baileys.link(stage.home / "baileys", CAROL)
        stage.run("wactl", "send", SESSION, CAROL, "hello, Baileys", "--wait", "delivered")
        got = baileys.wait("message", text="hello, Baileys")
        print(f"Baileys received: {got['text']}")
        baileys.send(got["key"]["remoteJid"], "hello, waD")
        until("Baileys' answer", lambda: "hello, waD" in bodies(stage))
        stage.run("wactl", "messages", SESSION, "--chat", CAROL)
    finally:
        baileys.close()


def survive(stage: Stage) -> None:
    """Step 3: SIGKILL with a message in flight, both ways."""
    say("waD is killed while a message is on its way: the server's answer to it is lost.")
    stage.run("wactl", "sandbox", "phone", BOB, "--auto-reply", "")
    stage.run("wactl", "sandbox", "fault", "drop-ack", "--target", OWN.lstrip("+"))
    stage.run("wactl", "send", SESSION, BOB, "sent just before the crash")
    until("the message at the phone", lambda: count_at_phone(stage, "sent just before the crash"))
    stage.kill_daemon()
    stage.run("wactl", "sandbox", "send", BOB, OWN, "written while you were away")
    say("Started again, it restores the session without a code.")
    stage.start_daemon()
    stage.run("wactl", "connect", SESSION)
    until("the message that waited", lambda: "written while you were away" in bodies(stage))
    stage.run("wactl", "messages", SESSION, "--chat", BOB, "--limit", "4")
    for text, times in (
        ("sent just before the crash", count_at_phone(stage, "sent just before the crash")),
        ("written while you were away", bodies(stage).count("written while you were away")),
    ):
        if times != 1:
            raise DemoError(f"{text!r} arrived {times} times instead of once")
        print(f"arrived exactly once: {text}")


def bodies(stage: Stage) -> list[str]:
    """Texts of all messages that were announced."""
    found = stage.json(
        "wactl", "tail-events", SESSION, "--type", "message:new", "--since", "0", "--no-follow"
    )
    events = found if isinstance(found, list) else [found]
    return [event["data"].get("body", "") for event in events]


def count_at_phone(stage: Stage, text: str) -> int:
    """How often a text is in the history of Bob's phone."""
    found = stage.json("wactl", "sandbox", "messages", BOB)
    rows = found if isinstance(found, list) else found.get("messages", [found])
    return sum(row["text"] == text for row in rows)


def play(stage: Stage) -> None:
    """All of it."""
    stage.start_sandbox()
    stage.start_daemon()
    link(stage)
    talk_to_a_phone(stage)
    talk_to_baileys(stage)
    survive(stage)
    say("And this is how it stands.")
    stage.run("wactl", "status", SESSION)


def main() -> int:
    """Play in a temporary home."""
    with tempfile.TemporaryDirectory(prefix="waD-demo-") as home:
        stage = Stage(Path(home))
        try:
            play(stage)
        except DemoError as error:
            print(f"\ndemo: {error}", file=sys.stderr)
            log = Path(home) / "waD.log"
            print(log.read_text()[-4000:] if log.exists() else "", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
        finally:
            stage.stop()
    say("The demonstration is over; nothing of it is left on this machine.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
