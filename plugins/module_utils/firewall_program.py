# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host does by itself for its firewall: gates that follow a service, and the undo.

The module installs this very file as a program, so it stands on the standard library alone.
Services call ``open`` and ``close``; a timer calls ``undo`` for a change that nobody confirmed, and
firewalld ``boot`` before it starts.

A gate is open while ``/run/holdfast-firewall/<gate>.nft`` exists. The rules include these files, so
that a gate stays open when the rules are loaded again, and is closed after a boot.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import select
import subprocess
import sys
import syslog
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Optional, Sequence, Tuple

PROGRAM = "/usr/local/sbin/holdfast-firewall"
GATES = "/etc/holdfast-firewall/gates.json"
RUN = "/run/holdfast-firewall"
STATE = "/var/lib/holdfast-firewall"
PENDING = STATE + "/pending.json"
UNDONE = STATE + "/undone.json"
UNDO = STATE + "/undo"  # this program, as long as there is something to undo
BOOT_ID = "/proc/sys/kernel/random/boot_id"
TABLE = "inet holdfast"
TABLE_FILE = "/etc/nftables.d/holdfast.nft"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CHECK_SECONDS = 10  # for one try of a check
_PAUSES = (0.1, 0.2, 0.5, 1, 2, 5)  # between tries; the last one for ever

Runner = Callable[..., "tuple[int, str, str]"]
Step = Tuple[str, Callable[[], Optional[str]]]


def run(command: Sequence[str], text: str | None = None, timeout: float = 60) -> Any:
    """Exit code, output and error output of a program that is fed a text."""
    try:
        done = subprocess.run(
            list(command),
            check=False,
            input=(text or "").encode(),
            capture_output=True,
            timeout=timeout,
            env={**os.environ, "LC_ALL": "C", "PATH": _PATH},
        )
    except FileNotFoundError:
        return 127, "", f"{command[0]}: not found"
    except (OSError, subprocess.TimeoutExpired) as error:
        return 126, "", str(error)
    out, err = (stream.decode("utf-8", "replace") for stream in (done.stdout, done.stderr))
    return done.returncode, out, err


def log(message: str) -> None:
    """To the host's log, which may be who called."""
    if "JOURNAL_STREAM" not in os.environ:
        syslog.syslog(syslog.LOG_NOTICE, message)
    with contextlib.suppress(OSError):
        sys.stderr.write(message + "\n")


class Firewall:
    """The firewall's files and programs on the host whose root directory is ``root``."""

    def __init__(self, root: str = "", runner: Runner = run) -> None:
        self._root = root.rstrip("/")
        self.run = runner

    def path(self, name: str) -> Path:
        """Where an absolute name of the host is found."""
        return Path(self._root + name)

    @contextlib.contextmanager
    def locked(self, name: str = RUN) -> Iterator[None]:
        """One at a time: services start and stop when they like."""
        directory = self.path(name)
        directory.mkdir(mode=0o755 if name == RUN else 0o700, exist_ok=True)
        handle = os.open(str(directory), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def gates(self) -> dict[str, Any]:
        """Gates by name: service, check (a command, or empty), wait (seconds) and ports."""
        try:
            return json.loads(self.path(GATES).read_text(encoding="utf-8"))["gates"]
        except FileNotFoundError:
            return {}

    def is_open(self, gate: str) -> bool:
        """Whether a gate is open, as far as its own file says."""
        return self._state(gate).exists()

    def _state(self, gate: str, kind: str = "nft") -> Path:
        return self.path(f"{RUN}/{gate}.{kind}")

    def mark(self, opening: Sequence[str] = (), closing: Sequence[str] = ()) -> list[str]:
        """Note gates as open or closed; the ports that are open by now.

        To be called with the lock held, as ``sync`` is.
        """
        for gate in closing:
            with contextlib.suppress(FileNotFoundError):
                self._state(gate).unlink()
        ports: list[str] = []
        for gate, settings in sorted(self.gates().items()):
            if gate in opening or self.is_open(gate):
                ports += settings["ports"]
                replace(self._state(gate), elements(settings["ports"]).encode(), 0o644)
        return ports

    def forget(self) -> None:
        """Remove what is noted of gates that there are no more."""
        for path in self.path(RUN).glob("*.nft"):
            if path.stem not in self.gates():
                path.unlink()

    def sync(self, opening: Sequence[str] = (), closing: Sequence[str] = ()) -> str:
        """Open and close gates: the live set then holds just what open gates have.

        Returns what went wrong, or nothing.
        """
        script = f"flush set {TABLE} open\n" + elements(self.mark(opening, closing))
        code, _out, error = self.run(["nft", "-f", "-"], script)
        return error.strip() if code else ""

    def open_gate(self, gate: str, background: bool = True) -> str:
        """Open a gate once its check passes; returns open, waiting or closed.

        It tries for the gate's ``wait`` seconds. With background, a process of its own goes on
        after that, until the check passes or the gate is closed or opened again.
        """
        settings = self.gates().get(gate)
        if settings is None:
            log(f"gate {gate}: {GATES} does not have it; nothing is opened")
            return "closed"
        life = secrets.token_hex(8)
        with self.locked():
            replace(self._state(gate, "life"), life.encode(), 0o600)
        fault = self._try(gate, life, settings, time.monotonic() + settings["wait"])
        if not fault:
            return "open"
        log(f"gate {gate}: stays closed for now: {fault}")
        if not background:
            return "closed"
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                nowhere = os.open("/dev/null", os.O_RDWR)
                for stream in range(3):
                    os.dup2(nowhere, stream)
                os.environ.pop("JOURNAL_STREAM", None)
                self._try(gate, life, settings, None)
            os._exit(0)
        os.wait()
        return "waiting"

    def _try(
        self, gate: str, life: str, settings: Mapping[str, Any], deadline: float | None
    ) -> str:
        """Try until the deadline, or as long as the gate lives; what is wrong, or nothing."""
        pauses = iter(_PAUSES)
        pause = 0.0
        while True:
            fault = check(settings["check"], self.run)
            if not fault:
                with self.locked():
                    if not self._lives(gate, life):
                        return ""
                    fault = self.sync(opening=[gate])
                log(f"gate {gate}: open" + _but(fault))
                return ""
            pause = next(pauses, pause)
            if deadline is not None and time.monotonic() + pause > deadline:
                return fault
            time.sleep(pause)
            if not self._lives(gate, life):
                return ""

    def _lives(self, gate: str, life: str) -> bool:
        """Whether the gate has been neither closed nor opened anew since."""
        try:
            return self._state(gate, "life").read_text(encoding="ascii") == life
        except FileNotFoundError:
            return False

    def close_gate(self, gate: str) -> None:
        """Close a gate, whatever state it is in."""
        with self.locked():
            with contextlib.suppress(FileNotFoundError):
                self._state(gate, "life").unlink()
            was_open = self.is_open(gate)
            fault = self.sync(closing=[gate])
        if was_open:
            log(f"gate {gate}: closed" + _but(fault))

    def guard(self, gate: str) -> None:
        """Follow a service for ever, where no service manager says when it comes and goes."""
        while True:
            service = self.gates()[gate]["service"]
            pid = self._main_pid(service)
            if pid is None:
                time.sleep(0.5)  # OpenRC has no event for it
                continue
            try:
                process = pidfd(pid)
            except ProcessLookupError:
                continue
            self.open_gate(gate)
            if process is None:
                while self._main_pid(service) == pid:
                    time.sleep(0.5)
            else:
                select.select([process], [], [])
                os.close(process)
            self.close_gate(gate)

    def _main_pid(self, service: str) -> int | None:
        """The pid that OpenRC has noted for a service; None while it does not run."""
        notes = [self.path(f"/run/openrc/options/{service}/child_pid")]
        for daemon in sorted(self.path(f"/run/openrc/daemons/{service}").glob("*")):
            named = re.search(r"^pidfile=(/\S+)", daemon.read_text(encoding="utf-8"), re.M)
            if named:
                notes.append(self.path(named.group(1)))
        for note in notes:
            with contextlib.suppress(OSError, ValueError):
                pid = int(note.read_text(encoding="ascii"))
                if self.path(f"/proc/{pid}").is_dir():
                    return pid
        return None

    def pending(self) -> dict[str, Any] | None:
        """The change that nobody has confirmed yet."""
        try:
            return json.loads(self.path(PENDING).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def undo(
        self, token: str | None = None, change: Mapping[str, Any] | None = None
    ) -> tuple[list[str], list[str]]:
        """Put back what was before the pending change: what was undone, and what could not be.

        token: of the change that is meant; another one, or none, needs nothing. change: one that is
        taken back even if it is not pending any more. The live rules come early, since they may be
        what keeps people out.
        """
        if not self.path(STATE).is_dir():
            return [], []
        with self.locked(STATE):  # one undo at a time, from its first step to its last
            return self._undo(token, change)

    def _undo(
        self, token: str | None, change: Mapping[str, Any] | None
    ) -> tuple[list[str], list[str]]:
        with self.locked():
            noted = self.pending()
            if change is None and (noted is None or token not in (None, noted["token"])):
                return [], []
            if noted is not None and noted["undo_first"]:  # nobody may confirm it from here on
                noted["undoing"] = True
                replace(self.path(PENDING), json.dumps(noted).encode(), 0o600)
        done: tuple[list[str], list[str]] = [], []
        pending = change or noted or {}
        # Without the lock: guards that end close their gates.
        _try_each(self._commands(pending["undo_first"]), done)
        with self.locked():
            _try_each(self._undo_steps(pending), done)
            record = {"at": time.time(), "token": pending["token"], "failed": done[1]}
            replace(self.path(UNDONE), json.dumps(record).encode(), 0o600)
            self.path(PENDING).unlink(missing_ok=True)
        log("the firewall is as before the change: " + "; ".join(done[1] or ["all put back"]))
        return done

    def undo_at_boot(self) -> None:
        """Put back the files of a change that nobody confirmed before the host was started anew.

        firewalld calls it before it reads its own. All else is for the next run, which says so.
        """
        with self.locked():
            pending = self.pending()
            if pending is not None and pending["boot_id"] != self.boot_id():
                done: tuple[list[str], list[str]] = [], []
                _try_each(self._former_files(pending), done)
                log("an unconfirmed change of the firewall is not for this boot" + _but(*done[1]))

    def boot_id(self) -> str:
        """A word that is another one after each boot; empty where the kernel has none."""
        try:
            return self.path(BOOT_ID).read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return ""

    def _former_files(self, pending: Mapping[str, Any]) -> Iterator[Step]:
        for entry in reversed(pending["files"]):
            yield entry["path"], lambda entry=entry: put_back(self.path(entry["path"]), entry)

    def _commands(self, commands: Sequence[Sequence[str]]) -> Iterator[Step]:
        for command in commands:
            yield " ".join(command), lambda command=command: self._fault(command)

    def _undo_steps(self, pending: Mapping[str, Any]) -> Iterator[Step]:
        """Each with what it is; a step says what went wrong, or raises OSError."""
        yield from self._former_files(pending)
        yield "gates that there were not", self.forget
        if pending["loads"]:
            yield "rules", lambda: self._load_former(pending["live"])
        if pending["live"] is not None:
            yield "gates", self.sync
        yield from self._commands(pending["undo_commands"])
        for name in reversed(pending["directories"]):
            yield name, lambda name=name: remove_empty(self.path(name))

    def _load_former(self, live: str | None) -> str:
        """The former rules, or no table where there was none, or where nft does not take them."""
        gone = f"table {TABLE}\ndelete table {TABLE}\n"
        code, _out, error = self.run(["nft", "-f", "-"], gone + (live or ""))
        if code:
            self.run(["nft", "-f", "-"], gone)
            return f"nft: {error.strip()}; the table was removed"
        return ""

    def _fault(self, command: Sequence[str]) -> str:
        code, _out, error = self.run(command)
        return (error.strip() or f"exit code {code}") if code else ""


def _try_each(steps: Iterator[Step], done: tuple[list[str], list[str]]) -> None:
    """Try every step, whatever becomes of the others; done: what was undone, and what was not."""
    for what, step in steps:
        try:
            fault = step()
        except (OSError, ValueError) as error:
            fault = str(error)
        done[bool(fault)].append(f"{what} ({fault})" if fault else what)


def _but(*faults: str) -> str:
    told = "; ".join(fault for fault in faults if fault)
    return f", but not everything could be changed: {told}" if told else ""


def pidfd(pid: int) -> int | None:
    """A handle of a process; None where Python (3.8) or the kernel (5.2) has none."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            return None
        raise


def elements(ports: Sequence[str]) -> str:
    """The statement that opens ports, such as ``tcp . 30303``."""
    return f"add element {TABLE} open {{ {', '.join(ports)} }}\n" if ports else ""


def beside(path: Path) -> Path:
    """Where the next content of a file is written; one that was cut short is found again there."""
    return path.with_name(f".{path.name}.holdfast-new")


def replace(path: Path, content: bytes, mode: int) -> None:
    """Write a file as a whole, synced."""
    fresh = beside(path)
    fresh.unlink(missing_ok=True)
    handle = os.open(str(fresh), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink()
        raise


def put(path: Path, wanted: Mapping[str, Any] | None) -> None:
    """Make a file what a description says (content, mode, uid, gid; or link); None for none."""
    fresh = beside(path)
    if fresh.parent.is_dir():
        fresh.unlink(missing_ok=True)
    if wanted is None:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
    elif "link" in wanted:
        fresh.symlink_to(wanted["link"])
        fresh.replace(path)
    else:
        replace(path, base64.b64decode(wanted["content"]), wanted["mode"])
        os.chown(str(path), wanted["uid"], wanted["gid"])


def is_foreign(path: Path, entry: Mapping[str, Any]) -> bool:
    """Whether a file is neither as before a change nor as the change wrote it."""
    if "wrote" not in entry or path.is_symlink():
        return False
    now = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None
    before = entry["before"]
    if before is not None and "link" not in before:
        before = hashlib.sha256(base64.b64decode(before["content"])).hexdigest()
    return now not in (before, *entry["wrote"])


def put_back(path: Path, entry: Mapping[str, Any]) -> str:
    """Make a file what it was before a change, unless somebody else has changed it since."""
    if is_foreign(path, entry):
        return "changed since by somebody else; left as it is"
    put(path, entry["before"])
    return ""


def remove_empty(path: Path) -> None:
    """Remove a directory, unless somebody has put something into it meanwhile."""
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()


def check(command: Sequence[str], runner: Runner = run) -> str:
    """Why a check does not pass; nothing if it does, or there is none."""
    if not command:
        return ""
    code, out, error = runner(command, None, _CHECK_SECONDS)
    said = (error or out).strip().splitlines()
    return f"{command[0]}: {said[-1] if said else 'exit code ' + str(code)}" if code else ""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    commands = argparse.ArgumentParser(prog="holdfast-firewall")
    each = commands.add_subparsers(dest="command", required=True)
    for name in ("open", "close", "guard"):
        each.add_parser(name).add_argument("gate")
    undo = each.add_parser("undo")
    undo.add_argument("token")
    undo.add_argument("--after", type=float, default=0, help="seconds to wait first")
    each.add_parser("boot")
    each.add_parser("status")
    return commands


def main(arguments: Sequence[str]) -> int:
    """The program; its exit code."""
    options = parser().parse_args(arguments)
    os.umask(0o022)
    syslog.openlog("holdfast-firewall")
    firewall = Firewall()
    if options.command == "open":
        firewall.open_gate(options.gate)
    elif options.command == "close":
        firewall.close_gate(options.gate)
    elif options.command == "guard":
        firewall.guard(options.gate)
    elif options.command == "undo":
        time.sleep(options.after)
        return 1 if firewall.undo(options.token)[1] else 0
    elif options.command == "boot":
        firewall.undo_at_boot()
    else:
        gates = {gate: "open" if firewall.is_open(gate) else "closed" for gate in firewall.gates()}
        status = {"gates": gates, "unconfirmed": firewall.pending() is not None}
        sys.stdout.write(json.dumps(status) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
