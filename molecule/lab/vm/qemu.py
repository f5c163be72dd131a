# SPDX-License-Identifier: GPL-3.0-or-later
"""One qemu process and its monitor (QMP). It dies with the process that started it."""

from __future__ import annotations

import json
import re
import select
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from ..shell import LabError
from .base import QEMU, Base, definition

BARE = [QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35"]
PROCESSORS = {  # by accelerator; the memory of a base resumes only on the one it was saved on
    "kvm": ["-accel", "kvm", "-cpu", "host"],
    # boots in a fifth less time than `max`, most of whose features are slow to emulate
    "tcg": ["-accel", "tcg,thread=multi,tb-size=256", "-cpu", "Westmere"],
}
KERNEL_LINE = (
    "root=/dev/vda rootfstype=ext4 rw fsck.mode=skip console=ttyS0 net.ifnames=0 loglevel=4 "
    "panic=1 mitigations=off cryptomgr.notests selinux=1 security=selinux enforcing=1"
)
ANSWER_SECONDS = 60


class Qemu:
    """A running virtual machine. `detached` lets it outlive this process."""

    def __init__(self, base: Base, console: Path, *, keep_writes: bool, detached: bool) -> None:
        """Start it: from the base's memory, or from power-on if writes are to be kept."""
        wanted = definition()
        ours, theirs = socket.socketpair()
        # the kernel ends qemu when this process dies, however it dies
        command = [] if detached else ["setpriv", "--pdeathsig", "KILL"]
        command += [*BARE, *PROCESSORS[base.accelerator.read_text()]]
        command += ["-m", str(wanted["memory"]), "-smp", str(wanted["processors"])]
        command += ["-kernel", str(base.kernel), "-initrd", str(base.initrd)]
        command += ["-append", KERNEL_LINE, "-serial", f"file:{console}"]
        drive = f"if=virtio,format=raw,cache=unsafe,file={base.disk}"
        command += ["-drive", drive if keep_writes else f"{drive},snapshot=on"]
        command += ["-device", "virtio-rng-pci", "-device", "virtio-net-pci,netdev=user"]
        # port 0: the machine's kernel chooses a free one
        command += ["-netdev", "user,id=user,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"]
        command += ["-chardev", f"socket,id=monitor,fd={theirs.fileno()}"]
        command += ["-mon", "chardev=monitor,mode=control"]
        if not keep_writes:
            command += ["-incoming", f"exec:cat '{base.memory}'"]
        self.errors = console.parent / "qemu.log"
        with theirs, self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for us, who then end it
            )
        self.socket = ours
        self.unread = b""
        self.events: list[str] = []
        self.message(time.monotonic() + ANSWER_SECONDS)  # its greeting
        self.ask("qmp_capabilities")
        self.port = self.forwarded_port()

    def message(self, deadline: float) -> dict[str, Any]:
        """The next message of the monitor; LabError if qemu is gone or silent."""
        while b"\n" not in self.unread:
            ready, _, _ = select.select([self.socket], [], [], max(0, deadline - time.monotonic()))
            received = self.socket.recv(65536) if ready else b""
            if not received:
                state = "does not answer" if self.process.poll() is None else "has ended"
                raise LabError(f"qemu {state}: {self.errors.read_text().strip()[-500:]}")
            self.unread += received
        line, self.unread = self.unread.split(b"\n", 1)
        return json.loads(line)

    def ask(self, command: str, **arguments: Any) -> Any:
        """Run a monitor command and return what it returns; events meanwhile are kept."""
        request = {"execute": command, "arguments": arguments}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            answer = self.message(deadline)
            if "event" in answer:
                self.events.append(answer["event"])
            elif "error" in answer:
                raise LabError(f"qemu: {command}: {answer['error']['desc']}")
            elif "return" in answer:
                return answer["return"]

    def wait_for(self, event: str, seconds: float) -> None:
        """Wait for an event that has not been waited for yet, such as RESET."""
        deadline = time.monotonic() + seconds
        while event not in self.events:
            answer = self.message(deadline)
            if "event" in answer:
                self.events.append(answer["event"])
        self.events.remove(event)

    def forwarded_port(self) -> int:
        """The local port behind which the machine's ssh is."""
        text = self.ask("human-monitor-command", **{"command-line": "info usernet"})
        found = re.search(r"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)", text)
        if not found:
            raise LabError(f"qemu forwards no port:\n{text}")
        return int(found[1])

    def save(self, target: Path) -> None:
        """Write the memory to a file and stop for good; the disk then belongs to it."""
        self.ask("migrate-set-parameters", **{"max-bandwidth": 8 << 30})
        self.ask("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
        self.ask("migrate", uri=f"exec:cat >'{target}'")
        self.wait_for("STOP", ANSWER_SECONDS)
        while (status := self.ask("query-migrate")["status"]) != "completed":
            if status in ("failed", "cancelled"):
                raise LabError(f"qemu: saving the memory {status}")
            self.wait_for("MIGRATION", ANSWER_SECONDS)
        self.ask("quit")
        self.process.wait(ANSWER_SECONDS)

    def end(self) -> None:
        """End it at once; what it wrote to a layer of its own is gone."""
        self.socket.close()
        self.process.kill()
        self.process.wait()
