# SPDX-License-Identifier: Apache-2.0
"""A fifth validator joins real processes through the command line, and a dead one leaves."""

import json
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

from holdfast_node import devnet_files
from holdfast_node.client import Client
from holdfast_node.devnet import check_ports
from holdfast_node.errors import ConfigError, HoldfastError, RefusedError
from holdfast_node.keys import load_key, new_key

pytestmark = pytest.mark.timeout(240)
DEADLINE = 90


def command(*arguments):
    return [sys.executable, "-m", "holdfast_node", *map(str, arguments)]


def members(member, *arguments, key=None):
    """`holdfast-node members` at a node, signing as `key`'s owner or as the node itself."""
    signing = ["--key", (key or member).folder / "validator.key"]
    done = subprocess.run(
        command("members", *arguments, "--url", member.url, *signing),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def until(condition, what):
    """Poll a node of another process: there is no event to wait for."""
    end = time.monotonic() + DEADLINE
    while True:
        try:
            if condition():
                return
        except HoldfastError:
            pass
        assert time.monotonic() < end, what
        time.sleep(0.2)


@pytest.fixture
def everyone(tmp_path):
    """Four validators of the genesis, and v5, which only v1 has among its peers."""
    for base in range(28_000, 29_000, 40):
        try:
            check_ports(5, base)
            break
        except ConfigError:
            continue
    folder = tmp_path / "net"
    folder.mkdir()
    layout = devnet_files.prepare(folder, 4, base)
    newcomer = devnet_files.Member("v5", folder / "v5", base + 4 * devnet_files.PORTS_PER_NODE)
    (newcomer.folder / "tls").mkdir(parents=True)
    (newcomer.folder / "data").mkdir()
    new_key(newcomer.folder / "validator.key")
    everyone = (*layout.members, newcomer)
    devnet_files._write_identities(everyone)
    for member in (layout.members[0], newcomer):
        member.config.write_text(
            devnet_files.render_config(member, everyone, folder / "genesis.json")
        )
    return everyone


def test_one_joins_and_one_leaves(everyone):
    v1, v2, v3, v4, v5 = everyone
    processes = {}
    with ExitStack() as stack:
        for member in everyone:
            log = stack.enter_context(member.log.open("w"))
            process = subprocess.Popen(
                command("run", "--config", member.config), stdout=log, stderr=log
            )
            processes[member.name] = process
            stack.callback(process.wait)
            stack.callback(process.kill)
        until(lambda: Client(v1.url).is_ready()[0], "v1 is not ready")
        until(lambda: Client(v5.url).status()["height"] > 0, "v5 follows nobody")
        assert Client(v5.url).status()["role"] == "observer"

        key = load_key(v5.folder / "validator.key").public_key.hex()
        where = ("--address", f"127.0.0.1:{v5.port}", "--sync-address", f"127.0.0.1:{v5.port + 1}")
        code, said = members(v1, "propose-join", "--name", "v5", "--public-key", key, *where)
        assert code == 0, said

        def in_step():
            (proposal,) = Client(v1.url).members()["proposals"]
            return proposal["candidate"]["in_step"]

        until(in_step, "v5 does not get in step")
        until(lambda: Client(v2.url).members()["proposals"], "v2 knows of no proposal")
        code, said = members(v2, "approve", "0")
        assert (code, "candidate_not_in_step" in said) == (1, True), said
        assert "v5 is not among the peers of this node" in said
        code, said = members(v1, "approve", "0", key=v2)  # v1 sees it: nothing to refuse
        assert code == 0, said
        code, said = members(v3, "approve", "0", "--unprobed")
        assert code == 0, said
        until(lambda: Client(v5.url).status()["role"] == "validator", "v5 does not vote")
        until(lambda: Client(v5.url).is_ready()[0], "v5 is not ready")
        assert [c["name"] for c in Client(v2.url).members("history")["changes"]] == ["v5"]

        # Four of five decide: without v1, nothing does without v5, which the others had to learn
        # of from the chain.
        processes["v1"].kill()
        processes["v1"].wait()
        code, said = members(v2, "propose-leave", "--name", "v1", "--reason", "it is dead")
        assert code == 0, said
        number = json.loads(json.dumps(Client(v2.url).members()["proposals"]))[0]["number"]
        for member in (v3, v4, v5):
            until(lambda m=member: Client(m.url).members()["proposals"], "no proposal")
            code, said = members(member, "approve", number)
            assert code == 0, said

        def left():
            return Client(v2.url).members()["validators"] == ["v2", "v3", "v4", "v5"]

        until(left, "v1 does not leave")
        height = Client(v2.url).height()
        until(lambda: Client(v5.url).height() > height + 1, "no more blocks")

        # Whoever has the genesis only can check what the new set made final.
        genesis = v1.folder.parent / "genesis.json"
        done = subprocess.run(
            command("verify", "block", height + 1, "--genesis", genesis, "--url", v5.url),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        with pytest.raises(RefusedError, match="block 99999"):
            Client(v5.url).proof("blocks/99999")
