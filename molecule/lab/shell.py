# SPDX-License-Identifier: GPL-3.0-or-later
"""Running programs and talking to whoever watches: every step is named before it starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / ".holdfast"
VENV = ROOT / ".venv"
COLLECTIONS = STATE / "collections"
BIN = ROOT / "molecule" / "lab" / "bin"  # a way into the hosts that is shorter than podman's
CONTAINERS_CONF = STATE / "containers.conf"  # only on machines that need one, see machine.py
PLUGINS = ROOT / "molecule" / "shared" / "plugins"
# What makes playbooks of tests quick, as the scenarios have it from .config/molecule/config.yml.
QUICK = {
    "ANSIBLE_STRATEGY": "mitogen_linear",
    "ANSIBLE_STRATEGY_PLUGINS": str(PLUGINS / "strategy"),
    "ANSIBLE_CONNECTION_PLUGINS": str(PLUGINS / "connection"),
    "ANSIBLE_DEPRECATION_WARNINGS": "false",  # that such a strategy may end with a later Ansible
}


class LabError(Exception):
    """The lab cannot go on; the text says what failed and what to do about it."""


class NotToBeHadError(LabError):
    """Something that not every machine can have; the text says what is missing."""


def say(text: str) -> None:
    """Print one line at once, also when the output is a pipe."""
    print(text, flush=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Name a step, run it, and say how many seconds it took."""
    say(f"--> {what}")
    started = time.monotonic()
    yield
    say(f"    done in {time.monotonic() - started:.1f} s")


def environment(**more: str) -> dict[str, str]:
    """The environment of the lab's children: our tools and collections first, steady output."""
    env = dict(os.environ)
    sbin = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # not on every user's PATH
    env["PATH"] = os.pathsep.join([str(BIN), str(VENV / "bin"), env.get("PATH", os.defpath), *sbin])
    env["PYTHONPATH"] = str(ROOT / "molecule")
    # Ansible starts a process for each task and host: compile once, but not all over the checkout
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    env["PYTHONPYCACHEPREFIX"] = str(STATE / "pycache")
    env["ANSIBLE_COLLECTIONS_PATH"] = str(COLLECTIONS)
    env.setdefault("ANSIBLE_CONFIG", str(ROOT / "ansible.cfg"))
    env.setdefault("ANSIBLE_PIPELINING", "1")
    env["LC_ALL"] = "C.UTF-8"  # Ansible refuses to start without a UTF-8 locale
    if CONTAINERS_CONF.exists():
        env.setdefault("CONTAINERS_CONF", str(CONTAINERS_CONF))
    env.update(more)
    return env


@contextmanager
def given_back() -> Iterator[None]:
    """With sudo, let what is made in the checkout belong to who called it.

    So the same person can go on without sudo: lint, look, sign with the demo's key.
    """
    try:
        yield
    finally:
        if os.geteuid() == 0 and "SUDO_UID" in os.environ:
            owner = int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"])
            for place in (VENV, STATE):
                for folder, folders, files in os.walk(place):
                    for name in (".", *folders, *files):
                        os.chown(Path(folder, name), *owner, follow_symlinks=False)


def capture(command: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    """Run quietly and return standard output; raise LabError with the last lines of a failure."""
    done = subprocess.run(
        list(command),
        env=env or environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    if done.returncode:
        raise failure(command, done.returncode, done.stderr or done.stdout)
    return done.stdout


def succeeds(command: Sequence[str]) -> bool:
    """Whether a command ends with 0; its output is not shown."""
    quiet = subprocess.DEVNULL
    env = environment()
    if not shutil.which(command[0], path=env["PATH"]):
        return False
    done = subprocess.run(
        list(command), env=env, stdin=quiet, stdout=quiet, stderr=quiet, check=False
    )
    return done.returncode == 0


def stream(
    command: Sequence[str],
    env: Mapping[str, str] | None = None,
    show: Callable[[str], str | None] = lambda line: line,
) -> list[str]:
    """Run, show each line as it comes (as `show` turns it; None hides it) and return all lines.

    A failure raises LabError, with the last lines if `show` hid any of them.
    """
    lines: list[str] = []
    hidden = False
    with subprocess.Popen(
        list(command),
        env=env or environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=ROOT,
    ) as child:
        for line in child.stdout or ():
            lines.append(line.rstrip())
            shown = show(lines[-1])
            hidden = hidden or shown is None
            if shown is not None:
                say("    " + shown)
    if child.returncode:
        raise failure(command, child.returncode, "\n".join(lines) if hidden else "")
    return lines


def failure(command: Sequence[str], code: int, output: str) -> LabError:
    """What to tell the user about a command that failed."""
    tail = "\n".join(f"      {line}" for line in output.strip().splitlines()[-15:])
    shown = " ".join(command[:8]) + (" ..." if len(command) > 8 else "")
    return LabError(f"`{shown}` ended with {code}" + (f":\n{tail}" if tail else ""))
