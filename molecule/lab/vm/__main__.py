# SPDX-License-Identifier: GPL-3.0-or-later
"""Virtual machines by hand: ``python3 -m lab.vm build | up NAME | ssh NAME ... | down [NAME]``."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
from pathlib import Path

from ..shell import LabError, given_back, say
from .build import prepare, provide
from .guest import MACHINES, Guest


def main(arguments: list[str]) -> int:
    """Run one command; 0 when it worked, 1 with the reason on standard error otherwise."""
    parser = argparse.ArgumentParser(prog="lab.vm", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="make what every machine resumes from")
    up = commands.add_parser("up", help="resume a machine that stays until `down`")
    up.add_argument("name")
    ssh = commands.add_parser("ssh", help="a shell, or one command, on a machine")
    ssh.add_argument("name")
    ssh.add_argument("words", nargs=argparse.REMAINDER)
    down = commands.add_parser("down", help="end one machine, or all of them")
    down.add_argument("name", nargs="?")
    options = parser.parse_args(arguments)
    try:
        with given_back():
            return dispatch(options)
    except LabError as error:
        print(f"lab.vm: {error}", file=sys.stderr)
        return 1


def dispatch(options: argparse.Namespace) -> int:
    """Call what the command line asks for."""
    if options.command == "build":
        prepare()
        provide()
    elif options.command == "up":
        up(options.name)
    elif options.command == "ssh":
        ssh(options.name, options.words)
    elif options.command == "down":
        down(options.name)
    return 0


def up(name: str) -> None:
    """Start a machine that stays, and say how to reach it."""
    down(name)
    guest = Guest(provide(), name=name)
    say(f"{name}: inventory {guest.link / 'inventory.json'}, host `machine`")


def ssh(name: str, words: list[str]) -> None:
    """Become an ssh to the machine."""
    record = json.loads(read(name))
    command = ["ssh", *record["ssh"], "127.0.0.1", *words]
    os.execvp(command[0], command)  # noqa: S606 -- that is wanted


def read(name: str) -> str:
    """What is kept about a machine; LabError if there is none of this name."""
    path = MACHINES / name / "machine.json"
    if not path.exists():
        raise LabError(f"no machine {name!r}: start one with `up {name}`")
    return path.read_text()


def down(name: str | None) -> None:
    """End a machine, or all, also those of tests; none there is nothing to do."""
    links = [MACHINES / name] if name else list(MACHINES.glob("*"))
    for link in links:
        if not link.is_symlink():
            continue
        folder = link.resolve()
        record = folder / "machine.json"
        if record.exists():
            pid = json.loads(record.read_text())["pid"]
            if str(folder).encode() in command_line(pid):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)  # a restart of the computer may have taken it
        link.unlink()
        say(f"    removed: machine {link.name}")


def command_line(pid: int) -> bytes:
    """What a process was started with; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
