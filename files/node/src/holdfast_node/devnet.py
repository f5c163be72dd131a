# SPDX-License-Identifier: Apache-2.0
"""A network of validators on loopback, each its own process: the node to try in seconds."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from holdfast_node.chain.crypto import parse_address
from holdfast_node.chain.transaction import Transfer
from holdfast_node.client import Client, UnreachableError
from holdfast_node.devnet_files import HOST, PORTS_PER_NODE, Layout, Member, claim, prepare
from holdfast_node.errors import ConfigError, HoldfastError
from holdfast_node.keys import load_key

READY_S: Final = 60.0
STOP_S: Final = 10.0
REPORT_S: Final = 5.0
_LOG_LINES: Final = 12
_LOG_BYTES: Final = 8_192

Say = Callable[[str], None]


class _StopRequestedError(Exception):
    """A signal asks the devnet to end."""


class Devnet:
    """The processes of a prepared folder; whoever starts them calls `end`."""

    def __init__(self, layout: Layout, stop: threading.Event) -> None:
        self.layout = layout
        self._stop = stop
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._clients = {
            m.name: Client(m.url, timeout=2.0, sleep=self.pause) for m in layout.members
        }

    def start(self) -> None:
        """Start every member; its output goes to its own log file."""
        for member in self.layout.members:
            with member.log.open("ab") as log:
                self._processes[member.name] = subprocess.Popen(  # noqa: S603 -- our own program
                    [sys.executable, "-m", "holdfast_node", "run", "--config", str(member.config)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    # Ctrl-C in the terminal is for us alone: we end the members in order.
                    start_new_session=True,
                )

    def wait_until_ready(self) -> None:
        """Wait until every member is in step with the others.

        Raises `HoldfastError` if one ends, or is not ready in time.
        """
        deadline = time.monotonic() + READY_S
        waiting = {member.name: "not asked yet" for member in self.layout.members}
        while waiting:
            self.pause(0.1)
            for name in list(waiting):
                try:
                    ready, reason = self._clients[name].is_ready()
                except UnreachableError:
                    ready, reason = False, "its API does not answer yet"
                if ready:
                    del waiting[name]
                else:
                    waiting[name] = reason or "no reason given"
            if waiting and time.monotonic() > deadline:
                named = "; ".join(f"{name}: {reason}" for name, reason in waiting.items())
                first = next(m for m in self.layout.members if m.name in waiting)
                raise HoldfastError(f"not ready after {READY_S:g} s: {named}; {_tail(first)}")

    def pause(self, seconds: float) -> None:
        """Sleep; raises if the devnet is to end, or a member has ended on its own."""
        if self._stop.wait(seconds):
            raise _StopRequestedError
        for member in self.layout.members:
            code = self._processes[member.name].poll()
            if code is not None:
                raise HoldfastError(f"{member.name} ended with code {code}; {_tail(member)}")

    def heights(self) -> dict[str, int | None]:
        """The height of each member, None where it does not answer."""
        found: dict[str, int | None] = {}
        for name, client in self._clients.items():
            try:
                found[name] = client.status().get("height")
            except HoldfastError:
                found[name] = None
        return found

    def transfer_once(self) -> str:
        """Send one transfer through the first member and wait until all have its block.

        Returns what to tell the user. Raises `HoldfastError`, also if the members' blocks differ.
        """
        action = Transfer(parse_address(self.layout.guest_address), 1)
        first = self._clients[self.layout.members[0].name]
        outcome = first.execute(load_key(self.layout.funded), [action], wait_s=30.0)
        height = outcome.height
        if outcome.status != "committed" or height is None:
            raise HoldfastError(f"transfer {outcome.id} {outcome.status}: {outcome.reason}")
        deadline = time.monotonic() + READY_S
        while any((own or 0) < height for own in self.heights().values()):
            if time.monotonic() > deadline:
                raise HoldfastError(f"height {height} not reached everywhere: {self.heights()}")
            self.pause(0.02)
        hashes = {client.block(height).get("hash") for client in self._clients.values()}
        if len(hashes) != 1 or None in hashes:
            raise HoldfastError(f"the members' blocks at height {height} differ: {hashes}")
        return (
            f"transfer {outcome.id} committed at height {height} after {outcome.latency_ms} ms; "
            f"every validator has block {hashes.pop()}"
        )

    def end(self) -> list[str]:
        """Stop every member within `STOP_S` seconds; returns those that had to be killed."""
        for process in self._processes.values():
            process.terminate()
        deadline = time.monotonic() + STOP_S
        killed = []
        for name, process in self._processes.items():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                killed.append(name)
        return killed


def run_devnet(
    folder: Path | None, validators: int, base_port: int, say: Say, *, once: bool
) -> None:
    """Run until a signal asks to stop or, with `once`, until one transfer is committed everywhere.

    Without a folder a temporary one is used, and removed at the end. `say` prints a line.

    Raises `ConfigError` for a folder or ports that cannot be used, `HoldfastError` if the network
    does not come up or a member ends.
    """
    check_ports(validators, base_port)
    with _signals() as stop, _folder(folder) as path:
        layout = prepare(path, validators, base_port)
        devnet = Devnet(layout, stop)
        say(f"starting {', '.join(member.name for member in layout.members)} in {path}")
        start = time.monotonic()
        try:
            devnet.start()
            devnet.wait_until_ready()
            say(f"ready after {time.monotonic() - start:.1f} s")
            if once:
                say(devnet.transfer_once())
                return
            say(introduce(layout))
            while True:
                devnet.pause(REPORT_S)
                shown = (f"{k} {'-' if v is None else v}" for k, v in devnet.heights().items())
                say(f"height  {'  '.join(shown)}")
        except _StopRequestedError:
            say("stopping")
        finally:
            killed = devnet.end()
            if killed:
                say(f"killed after {STOP_S:g} s: {', '.join(killed)}")


def introduce(layout: Layout) -> str:
    """What the user has now, and commands to try."""
    url = layout.members[0].url
    key = layout.funded
    return "\n".join(
        [
            "",
            *(f"  {member.name}  {member.url}  log {member.log}" for member in layout.members),
            "",
            f"  account with funds: {key}",
            "",
            "Try, in another terminal:",
            f"  holdfast-node status --url {url}",
            f"  holdfast-node tx transfer --url {url} --key {key} \\",
            f"    --to {layout.guest_address} --amount 42 --wait",
            f"  holdfast-node tx put --url {url} --key {key} --name greeting --value hello --wait",
            f"  and in a browser: {url}/",
            "",
            "Ctrl-C ends it.",
            "",
        ]
    )


def check_ports(validators: int, base_port: int) -> None:
    """Raise `ConfigError` if a port that the members need is taken."""
    for member in (
        Member(f"v{i + 1}", Path(), base_port + i * PORTS_PER_NODE) for i in range(validators)
    ):
        for port in member.ports:
            with socket.socket() as probe:
                # As servers do, so that a connection of an earlier run is not in the way.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((HOST, port))
                except OSError as error:
                    fault = f"--base-port = {base_port}: port {port} for {member.name}"
                    way_out = "expected it to be free; choose another --base-port"
                    raise ConfigError([f"{fault}: {error.strerror}: {way_out}"]) from error


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that is set by SIGINT, SIGTERM or SIGHUP, within the context."""
    stop = threading.Event()

    def note(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, note) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def _folder(wanted: Path | None) -> Iterator[Path]:
    """The claimed folder; a temporary one is removed at the end."""
    folder = wanted.absolute() if wanted else Path(tempfile.mkdtemp(prefix="holdfast-devnet-"))
    try:
        claimed = claim(folder)
        try:
            yield folder
        finally:
            os.close(claimed)
    finally:
        if wanted is None:
            shutil.rmtree(folder)


def _tail(member: Member) -> str:
    """The end of its log, since a temporary folder is gone when this is read."""
    with member.log.open("rb") as file:
        file.seek(max(0, member.log.stat().st_size - _LOG_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    end = "\n".join(f"  {line}" for line in lines[-_LOG_LINES:])
    return f"the end of its log (--dir keeps it all):\n{end}"
