# SPDX-License-Identifier: GPL-3.0-or-later
"""Three etcd members on loopback, for comparison: every write is fsynced by a majority."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from base64 import b64encode
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Mapping, Sequence

from connection import BenchError, Connection
from load import Phase, summarise
from machine import Meter

MEMBERS = 3
HOST = "127.0.0.1"
_READY_S = 30.0
_STOP_S = 10.0
_KEYS = 1_000  # of each client
_LOG_LINES = 8


@dataclass(frozen=True)
class Member:
    name: str
    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def end_by(self, deadline: float) -> None:
        """Wait for its end until `deadline` (monotonic), then kill it."""
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            print(f"    {self.name} had to be killed")

    def fault(self, what: str) -> BenchError:
        lines = self.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return BenchError("\n".join([f"{self.name} {what}; the end of its log:", *lines]))


def find(program: str) -> str | None:
    """The path of the etcd server, None if it is not there."""
    return shutil.which(program)


def version(program: str) -> str:
    """Such as "3.4.23"."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return said.stdout.splitlines()[0].rpartition(" ")[2]


@contextmanager
def running(program: str, folder: Path, base_port: int) -> Iterator[list[Member]]:
    """A new cluster with its data in `folder`; uses six ports from `base_port`."""
    peers = {f"e{i + 1}": f"http://{HOST}:{base_port + 2 * i}" for i in range(MEMBERS)}
    members: list[Member] = []
    try:
        for i, (name, peer) in enumerate(peers.items()):
            url, log = f"http://{HOST}:{base_port + 2 * i + 1}", folder / f"{name}.log"
            command = [program, "--name", name, "--data-dir", str(folder / name)]
            command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
            command += ["--listen-client-urls", url, "--advertise-client-urls", url]
            command += ["--initial-cluster", ",".join(f"{n}={u}" for n, u in peers.items())]
            # A user's own etcd may be configured by ETCD_* variables; this one is not.
            keep = {k: v for k, v in os.environ.items() if not k.startswith("ETCD_")}
            if "ETCD_UNSUPPORTED_ARCH" in os.environ:
                keep["ETCD_UNSUPPORTED_ARCH"] = os.environ["ETCD_UNSUPPORTED_ARCH"]
            with log.open("wb") as output:
                process = subprocess.Popen(
                    command,
                    env=keep,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,  # Ctrl-C is for us: we end them in order
                )
            members.append(Member(name, url, process, log))
        yield members
    finally:
        for member in members:
            member.process.terminate()
        deadline = time.monotonic() + _STOP_S
        for member in members:
            member.end_by(deadline)


async def wait_until_ready(members: Sequence[Member]) -> None:
    """Until every member knows a leader."""
    deadline = time.monotonic() + _READY_S
    for member in members:
        connection = Connection(member.url)
        ask = connection.render("POST", "/v3/maintenance/status", {})
        while True:
            if member.process.poll() is not None:
                raise member.fault(f"ended with code {member.process.returncode}")
            try:
                status, answer = await connection.exchange(ask)
                if status == 200 and int(answer.get("leader", 0)):
                    break
            except BenchError:
                pass  # does not listen yet
            if time.monotonic() > deadline:
                raise member.fault(f"has no leader after {_READY_S:g} s")
            await asyncio.sleep(0.1)
        connection.close()


async def put(
    name: str,
    members: Sequence[Member],
    pids: Mapping[str, int],
    *,
    clients: int,
    seconds: float,
    value_bytes: int,
) -> Phase:
    """Each client puts one value after the other, for so many seconds."""
    clock = asyncio.get_running_loop().time
    sightings: list[tuple[float, int, float]] = []
    value = _base64(os.urandom(value_bytes))

    async def drive(connection: Connection, requests: Sequence[bytes], end: float) -> None:
        done = 0
        while (start := clock()) < end:
            await connection.fetch(requests[done % _KEYS])
            now = clock()
            sightings.append((now, 1, now - start))
            done += 1
        connection.close()

    prepared = []
    for number in range(clients):
        connection = Connection(members[number % len(members)].url)
        keys = [_base64(b"bench/%d/%d" % (number, i)) for i in range(_KEYS)]
        requests = [
            connection.render("POST", "/v3/kv/put", {"key": key, "value": value}) for key in keys
        ]
        prepared.append((connection, requests))
    meter, start = Meter(pids), clock()
    async with asyncio.timeout(seconds + _READY_S), asyncio.TaskGroup() as tasks:
        for connection, requests in prepared:
            tasks.create_task(drive(connection, requests, start + seconds))
    return summarise(name, sightings, meter.read(), start=start, end=start + seconds)


def _base64(data: bytes) -> str:
    return b64encode(data).decode()
