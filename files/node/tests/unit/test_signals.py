# SPDX-License-Identifier: Apache-2.0
"""SIGHUP reloads the identity, from the first moment of a node's life."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import anyio
import pytest
from net_support import Pki, until

from holdfast_node.net.keeper import Keeper
from holdfast_node.process import _signals

CHILD = [sys.executable, "-m", "holdfast_node", "run", "--config"]


@pytest.fixture(
    params=[("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})],
    ids=["asyncio", "uvloop"],
)
def anyio_backend(request):
    return request.param


def test_a_hangup_does_not_end_a_node_that_is_starting(tmp_path):
    """Here it waits for its configuration to be written."""
    config = tmp_path / "config.toml"
    os.mkfifo(config)
    with subprocess.Popen([*CHILD, config], stderr=subprocess.PIPE, text=True) as node:
        pipe = None
        while pipe is None and node.poll() is None:
            with contextlib.suppress(OSError):  # nobody reads it yet
                pipe = os.open(config, os.O_WRONLY | os.O_NONBLOCK)
            time.sleep(0.01)
        if pipe is not None:
            node.send_signal(signal.SIGHUP)
            node.send_signal(signal.SIGHUP)
            with contextlib.suppress(BrokenPipeError):  # it has ended: its exit code tells
                os.write(pipe, b"chain_id = 7")
            os.close(pipe)
        _, err = node.communicate(timeout=30)
    assert node.returncode == 2, err
    assert "chain_id = 7" in err


@pytest.mark.anyio
@pytest.mark.parametrize("early", [[], [signal.SIGHUP], [signal.SIGHUP] * 3])
async def test_early_hangups_count_as_one(tmp_path, early):
    keeper = Keeper(Pki(tmp_path).tls("v1"))
    expected = int(bool(early))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_signals, tasks, SimpleNamespace(keeper=keeper), early)
        await until(lambda: keeper.reloads["accepted"] == expected)
        await anyio.wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGHUP)
        await until(lambda: keeper.reloads["accepted"] > expected)
        assert keeper.reloads == {"accepted": expected + 1, "refused": 0}
        tasks.cancel_scope.cancel()
