# SPDX-License-Identifier: Apache-2.0
"""How `holdfast-node run` sets the interpreter up before the node starts."""

import json
import subprocess
import sys
from pathlib import Path

from holdfast_node.devnet_files import prepare

# Stands in for the event loop: says what the collector is like when the node would start.
PROGRAM = """
import gc, json, sys
collections = []
gc.callbacks.append(lambda phase, info: collections.append(info["generation"]))
import uvloop
def run(node):
    node.close()
    print(json.dumps({
        "enabled": gc.isenabled(),
        "frozen": gc.get_freeze_count(),
        "young": gc.get_threshold()[0],
        "oldest": collections.count(2),
    }))
uvloop.run = run
collections.clear()
from holdfast_node.cli import main
main()
"""


def test_what_is_imported_is_never_collected(tmp_path: Path) -> None:
    (member,) = prepare(tmp_path, 1, 26_600).members
    command = [sys.executable, "-c", PROGRAM, "run", "--config", str(member.config)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["enabled"], "a node that never collects would grow"
    assert found["frozen"] > 50_000
    assert found["young"] > 700
    assert found["oldest"] == 0
