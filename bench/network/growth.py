# SPDX-License-Identifier: GPL-3.0-or-later
"""What a block costs as the network grows: 4, 7, 10 and 16 validators, transactions of 1 KB.

    .venv/bin/python bench/network/growth.py

See README.md beside this file for what is measured, and how.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Sequence

import machine
import members
import simulated
from connection import BenchError
from holdfast_node.chain.crypto import PrivateKey, account_of, format_address
from holdfast_node.chain.transaction import Put, sign_transaction
from holdfast_node.devnet_files import CHAIN_ID
from holdfast_node.errors import HoldfastError
from members import Process

RESULTS = Path(__file__).parent / "results"
SIZES = (4, 7, 10, 16)
VALUE_BYTES = 860  # makes a transaction of about 1 KB
KEYS = 500
SETTLE_S = 60.0


@dataclass(frozen=True)
class Real:
    """Processes on this machine; the costs are per block, of one validator on average."""

    validators: int
    transactions: int
    blocks: int
    latency_p50_ms: float
    cpu_ms: float
    disk_kib: float
    first_mib: float
    largest_mib: float
    others_cores: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = parser.add_argument("--real", type=int, nargs="*", default=[4, 7, 10])
    sizes.help = "validators that are processes (4 7 10)"
    parser.add_argument("--seconds", type=int, default=30, help="of load on each (30)")
    parser.add_argument("--rate", type=int, default=50, help="transactions a second (50)")
    parser.add_argument("--blocks", type=int, default=20, help="blocks, simulated (20)")
    parser.add_argument("--delay-ms", type=float, default=5.0, help="one way, simulated (5)")
    parser.add_argument("--mbit", type=float, default=100.0, help="per uplink, simulated (100)")
    parser.add_argument("--base-port", type=int, default=27600, help="first port (27600)")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="for data (/var/tmp)")  # noqa: S108 -- a new folder in it
    options = parser.parse_args()
    raw = transaction(PrivateKey(os.urandom(32)), 0)
    virtual = [
        simulated.run(
            size,
            blocks=options.blocks,
            transactions=[raw] * options.rate,
            delay_s=options.delay_ms / 1000,
            bytes_per_s=options.mbit * 125_000,
        )
        for size in SIZES
    ]
    print(simulated.table(virtual, options.rate, len(raw)), flush=True)
    try:
        with tempfile.TemporaryDirectory(prefix="holdfast-growth-", dir=options.dir) as name:
            described = machine.describe(Path(name))
            real = [measure(Path(name) / str(size), size, options) for size in options.real]
    except (BenchError, HoldfastError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"\n{table(real, options)}")
    RESULTS.mkdir(exist_ok=True)
    result = RESULTS / time.strftime("growth-%Y%m%d-%H%M%S.json")
    content = {"machine": described, "transaction_bytes": len(raw)}
    content["simulated"] = [asdict(each) for each in virtual]
    content["real"] = [asdict(each) for each in real]
    result.write_text(json.dumps(content, indent=1) + "\n")
    print(f"\n{result}")
    return 0


def transaction(key: PrivateKey, nonce: int) -> bytes:
    """About 1 KB, signed; it overwrites one of `KEYS` values."""
    return sign_transaction(
        key,
        chain_id=CHAIN_ID,
        nonce=nonce,
        expires_at_ms=time.time_ns() // 1_000_000 + 3_600_000,
        actions=[Put(f"k{nonce % KEYS}", os.urandom(VALUE_BYTES))],
    )


def measure(folder: Path, size: int, options: argparse.Namespace) -> Real:
    """Hand in `rate` transactions every second, to one validator after the other."""
    print(f"--> {size} validators, {options.seconds} s", flush=True)
    payers = [PrivateKey(os.urandom(32)) for _ in range(size)]
    nonces = [0] * size
    with members.running(folder, size, options.base_port, {}) as (_, processes):
        meter = machine.Meter({process.name: process.pid for process in processes})
        first = largest(processes)
        memory, height, disk = [first], processes[0].height(), stored(processes)
        start = time.monotonic()
        for second in range(options.seconds):
            turn = second % size
            for _ in range(options.rate):
                processes[turn].client.submit(transaction(payers[turn], nonces[turn]))
                nonces[turn] += 1
            memory.append(largest(processes))
            time.sleep(max(0.0, start + second + 1 - time.monotonic()))  # so many in each second
        settle(processes, payers, nonces)
        cost = meter.read()
        blocks = processes[0].height() - height
        status = processes[0].client.status()
        return Real(
            size,
            transactions=sum(nonces),
            blocks=blocks,
            latency_p50_ms=status["commit_latency_ms"]["p50"],
            cpu_ms=sum(cost.server_cores.values()) * cost.seconds * 1000 / size / blocks,
            disk_kib=(stored(processes) - disk) / 1024 / size / blocks,
            first_mib=first / 2**20,
            largest_mib=max(memory) / 2**20,
            others_cores=cost.others_cores,
        )


def largest(processes: Sequence[Process]) -> int:
    """Resident bytes of the validator that has most."""
    return max(machine.resident_bytes(process.pid) for process in processes)


def stored(processes: Sequence[Process]) -> int:
    """Bytes in all data folders."""
    folders = [process.member.folder / "data" for process in processes]
    return sum(path.stat().st_size for folder in folders for path in folder.iterdir())


def settle(
    processes: Sequence[Process], payers: Sequence[PrivateKey], nonces: Sequence[int]
) -> None:
    """Wait until all that was handed in is final everywhere."""
    deadline = time.monotonic() + SETTLE_S
    for payer, nonce in zip(payers, nonces):
        address = format_address(account_of(payer.public_key))
        for process in processes:
            while process.client.account(address)["nonce"] < nonce:
                if time.monotonic() > deadline:
                    raise BenchError(f"{process.name}: not all is final after {SETTLE_S:g} s")
                time.sleep(0.1)  # it says so only when asked


def table(found: Sequence[Real], options: argparse.Namespace) -> str:
    lines = [
        f"processes, {options.rate} transactions/s for {options.seconds} s; "
        "per block and validator: CPU, disk",
        "validators  blocks  commit p50    CPU     disk      resident, first / largest  others",
    ]
    lines += [
        f"{r.validators:10}  {r.blocks:6}  {r.latency_p50_ms:7.0f} ms  {r.cpu_ms:4.0f} ms  "
        f"{r.disk_kib:5.0f} KiB  {r.first_mib:9.0f} / {r.largest_mib:.0f} MiB"
        f"{r.others_cores:13.1f} cores"
        for r in found
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
