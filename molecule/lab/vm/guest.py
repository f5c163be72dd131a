# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine as its user sees it: commands, Ansible, reboot, power cut, back to a clean state."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from ..shell import STATE, VENV, LabError, environment, failure
from .base import Base
from .qemu import Qemu

BOOT_SECONDS = 600
HOST = "machine"
MACHINES = STATE / "machines"  # links to the folders of all; one whose program was killed stays


class Guest:
    """A virtual machine. With statement: it is gone at the end, however that comes."""

    def __init__(self, base: Base, *, keep_writes: bool = False, name: str = "") -> None:
        """Resume from the base (or, with `keep_writes`, boot its disk) and wait for ssh.

        One with a name outlives this program.
        """
        self.base = base
        self.keep_writes = keep_writes
        self.used = False  # since it was in the state of the base
        self.folder = Path(tempfile.mkdtemp(prefix="holdfast-vm-"))  # short: it holds a socket
        self.console = self.folder / "console"
        self.detached = bool(name)
        self.link = MACHINES / (name or self.folder.name)
        MACHINES.mkdir(exist_ok=True)
        self.link.symlink_to(self.folder)
        self.qemu: Qemu | None = None
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Guest:
        """The machine itself; it already runs."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.close()

    def start(self) -> None:
        """Start qemu, then wait until the machine takes commands."""
        self.qemu = Qemu(
            self.base, self.console, keep_writes=self.keep_writes, detached=self.detached
        )
        record = {"pid": self.qemu.process.pid, "ssh": self.ssh_options()}
        (self.folder / "machine.json").write_text(json.dumps(record))
        self.write_inventory()
        self.wait_for_ssh()
        if not self.keep_writes:  # it resumes in the past
            self.run("date", "-s", f"@{time.time():.3f}")
        self.used = False

    def restore(self) -> None:
        """Back to the state of the base: clean, booted, nothing of what happened since."""
        if self.used:
            self.stop()
            self.start()

    def stop(self) -> None:
        """End qemu and the shared ssh connection."""
        if self.qemu:
            self.disconnect()
            self.qemu.end()
            self.qemu = None

    def close(self) -> None:
        """End it and remove its files."""
        self.stop()
        shutil.rmtree(self.folder)
        self.link.unlink(missing_ok=True)

    @property
    def running(self) -> Qemu:
        """Its qemu; LabError after stop()."""
        if self.qemu is None:
            raise LabError("the machine is not running")
        return self.qemu

    def ssh_options(self) -> list[str]:
        """Options of ssh that lead to the machine, and to no other."""
        settings = {
            "IdentityFile": self.base.key,
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": self.base.known_hosts,
            "GlobalKnownHostsFile": "/dev/null",
            "HostKeyAlias": HOST,
            "StrictHostKeyChecking": "yes",
            "Port": self.running.port,
            "User": "root",
            "BatchMode": "yes",
            "ConnectTimeout": 20,
            "ServerAliveInterval": 30,
            "ControlMaster": "auto",
            "ControlPersist": 600,
            "ControlPath": self.folder / "ssh",
            "LogLevel": "ERROR",
        }
        quoted = [f"{name}={json.dumps(str(value))}" for name, value in settings.items()]
        return ["-F", "/dev/null", *(word for option in quoted for word in ("-o", option))]

    def write_inventory(self) -> None:
        """The inventory Ansible reaches it by."""
        variables = {
            "ansible_host": "127.0.0.1",
            "ansible_python_interpreter": "/usr/bin/python3",
            "ansible_ssh_args": shlex.join(self.ssh_options()),
            "ansible_ssh_pipelining": True,
        }
        content = {"all": {"hosts": {HOST: variables}}}
        (self.folder / "inventory.json").write_text(json.dumps(content, indent=1))

    def popen(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command on the machine; its words are passed on as they are."""
        ssh = ["ssh", *self.ssh_options(), "127.0.0.1", shlex.join(command)]
        options.setdefault("stdin", subprocess.DEVNULL)
        self.used = True
        return subprocess.Popen(ssh, text=True, **options)

    def run(
        self, *command: str, check: bool = True, text: str = "", seconds: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run a command with `text` as its input; LabError if it fails and `check` is set."""
        pipe = subprocess.PIPE
        with self.popen(*command, stdin=pipe, stdout=pipe, stderr=pipe) as child:
            try:
                output, errors = child.communicate(text, timeout=seconds)
            except subprocess.TimeoutExpired:
                child.kill()
                raise
        if check and child.returncode:
            raise failure(command, child.returncode, errors or output)
        return subprocess.CompletedProcess(command, child.returncode, output, errors)

    def sh(self, script: str, **options: Any) -> str:
        """What a shell script prints, without white space around it."""
        return self.run("sh", "-euc", script, **options).stdout.strip()

    def disconnect(self) -> None:
        """Drop the shared ssh connection, which a dead machine would let hang."""
        ssh = ["ssh", *self.ssh_options(), "-O", "exit", "127.0.0.1"]
        subprocess.run(ssh, check=False, capture_output=True)

    def wait_for_ssh(self) -> None:
        """Wait until sshd sends its banner; LabError with the end of the console otherwise."""
        deadline = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < deadline:
            # qemu accepts in the machine's name, and hangs up if nobody listens there
            try:
                with socket.create_connection(("127.0.0.1", self.running.port), 20) as peer:
                    if peer.recv(4) == b"SSH-":
                        return
            except OSError:
                pass
            if self.running.process.poll() is not None:
                raise LabError(f"qemu has ended: {self.running.errors.read_text()[-500:]}")
            time.sleep(0.2)
        tail = "\n".join(self.console.read_text(errors="replace").splitlines()[-15:])
        raise LabError(f"the machine has no ssh after {BOOT_SECONDS} s; its console:\n{tail}")

    def story(self) -> str:
        """What helps to understand a failure: the last play, the end of journal and console."""
        output = self.folder / "output"
        parts = {"the last play": output.read_text() if output.exists() else ""}
        try:
            journal = self.run("journalctl", "-b", "-n", "40", "--no-pager", seconds=30)
            parts["journal"] = journal.stdout
        except (LabError, subprocess.TimeoutExpired) as error:
            parts["journal"] = f"cannot be had: {error}"
        parts["console"] = "\n".join(self.console.read_text(errors="replace").splitlines()[-15:])
        return "\n".join(f"--- {name}\n{text.strip()}" for name, text in parts.items() if text)

    def reboot(self) -> None:
        """Reboot it from the inside, as an administrator does, and wait until it is up."""
        self.run("systemctl", "--no-block", "reboot")
        self.back()

    def power_cut(self) -> None:
        """Take the power away and give it back: what was not on the disk is lost."""
        self.running.ask("system_reset")
        self.back()

    def back(self) -> None:
        """Wait for the reset that is coming, then for the machine."""
        self.running.wait_for("RESET", BOOT_SECONDS)
        self.disconnect()
        self.settle()

    def settle(self) -> None:
        """Wait until booting is over. Units that failed are for the caller to judge."""
        self.wait_for_ssh()
        self.run("systemctl", "is-system-running", "--wait", check=False, seconds=BOOT_SECONDS)

    def ansible(self, *command: str, seconds: float) -> subprocess.CompletedProcess[str]:
        """Run one of Ansible's programs with the machine as its inventory."""
        self.used = True
        return subprocess.run(
            [str(VENV / "bin" / command[0]), *command[1:]],
            env=environment(ANSIBLE_INVENTORY=str(self.folder / "inventory.json"), NO_COLOR="1"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )

    def module(
        self,
        name: str,
        arguments: dict[str, Any],
        *,
        check: bool = False,
        variables: dict[str, Any] | None = None,
        seconds: float = 600,
    ) -> dict[str, Any]:
        """The result of one module: its own, and how it ended: failed, unreachable."""
        with tempfile.TemporaryDirectory(dir=self.folder) as tree:
            command = ["ansible", HOST, "-m", name, "-a", json.dumps(arguments), "--diff"]
            command += ["--check"] if check else []
            command += ["-e", json.dumps(variables or {})]
            done = self.ansible(*command, "--tree", tree, seconds=seconds)
            result = Path(tree, HOST)
            if not result.exists():
                raise failure(command, done.returncode, done.stdout + done.stderr)
            ends = {"failed": done.returncode == 2, "unreachable": done.returncode == 4}
            return {**json.loads(result.read_text()), **ends}

    def play(
        self, content: dict[str, Any], *, check: bool = False, seconds: float = 600
    ) -> dict[str, int]:
        """Run a play (its keys but `hosts`) and return the counts ok, changed, failed ...

        Whoever expects no failure looks at `failed`; what Ansible said is in the file `output`.
        """
        path = self.folder / "play.json"
        path.write_text(json.dumps([{"hosts": HOST, "gather_facts": False, **content}]))
        command = ["ansible-playbook", str(path), "--diff", *(["--check"] if check else [])]
        done = self.ansible(*command, seconds=seconds)
        (self.folder / "output").write_text(done.stdout + done.stderr)
        recap = re.search(rf"^{HOST} +: (.*)$", done.stdout, re.MULTILINE)
        if not recap:
            raise failure(command, done.returncode, done.stdout + done.stderr)
        return {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", recap[1])}
