# SPDX-License-Identifier: GPL-3.0-or-later
"""Validators on loopback that can be killed and started one by one, with settings of our own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Sequence

from connection import BenchError
from holdfast_node.client import Client, UnreachableError
from holdfast_node.devnet import check_ports
from holdfast_node.devnet_files import Layout, Member, claim, prepare

READY_S = 120.0


class Process:
    """A validator, and the way to talk to it."""

    def __init__(self, member: Member) -> None:
        self.name = member.name
        self.member = member
        self.client = Client(member.url, timeout=20.0)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with self.member.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "holdfast_node", "run", "--config", str(self.member.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us
            )

    def height(self) -> int:
        return int(self.client.status()["height"])

    def kill(self) -> None:
        """kill -9, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def until_ready(self) -> None:
        deadline, reason = time.monotonic() + READY_S, "not asked"
        while time.monotonic() < deadline:
            try:
                ready, why = self.client.is_ready()
                reason = why or "no reason given"
            except UnreachableError as error:
                ready, reason = False, str(error)
            if ready:
                return
            if self._process is None or self._process.poll() is not None:
                raise BenchError(f"{self.name} ended: {self.member.log.read_text()[-2000:]}")
            time.sleep(0.1)  # it says so only when asked
        raise BenchError(f"{self.name} is not ready after {READY_S:g} s: {reason}")


def until_whole(processes: Sequence[Process]) -> None:
    """Wait until all are ready, and connected to each other.

    A validator is ready with a quorum; its last connections may take some seconds more, and until
    then the network bears no other failure.
    """
    deadline = time.monotonic() + READY_S
    for process in processes:
        process.until_ready()
        while not all(peer["connected"] for peer in process.client.status()["peers"]):
            if time.monotonic() > deadline:
                raise BenchError(f"{process.name} is not connected to all after {READY_S:g} s")
            time.sleep(0.1)  # it says so only when asked


@contextmanager
def running(
    folder: Path, validators: int, base_port: int, consensus: dict[str, int]
) -> Iterator[tuple[Layout, list[Process]]]:
    """A new network in `folder`, ready; `consensus` are settings of that section."""
    check_ports(validators, base_port)
    claimed = claim(folder)
    processes: list[Process] = []
    try:
        layout = prepare(folder, validators, base_port)
        lines = ["", "[consensus]", *(f"{name} = {value}" for name, value in consensus.items())]
        for member in layout.members:
            with member.config.open("a") as file:
                file.write("\n".join(lines) + "\n")
        processes = [Process(member) for member in layout.members]
        for process in processes:
            process.start()
        until_whole(processes)
        yield layout, processes
    finally:
        for process in processes:
            process.kill()
        os.close(claimed)
