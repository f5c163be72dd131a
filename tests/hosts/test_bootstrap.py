# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that had no Python; `host` comes from testinfra's --hosts."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from lab.shell import ROOT, STATE, environment

Host = Any  # testinfra's Host has no types worth the name
OURS = "/opt/holdfast-python"


def bootstrap(host: Host, *words: str, **values: str) -> str:
    """Run the playbook as a user does; its output."""
    lab = host.backend.name.removeprefix("holdfast-").removesuffix("-host")
    values = {"bootstrap_hosts": "host", "lab_name": lab, **values}
    command = ["ansible-playbook", "holdfast.chain.bootstrap", *words, "-i", "host,"]
    command += ["-i", str(ROOT / "molecule/shared/inventory.yml"), "-e", json.dumps(values)]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_distribution_still_has_none(host: Host) -> None:
    """So that everything so far ran on the one that was brought."""
    assert host.run("command -v python3").rc != 0
    assert host.file(f"{OURS}/current/bin/python3").exists


def test_role_ran_on_it(host: Host) -> None:
    """Its outcome is in the kernel."""
    assert host.check_output("cat /proc/sys/net/core/somaxconn") == "65535"


def test_only_root_can_change_it(host: Host) -> None:
    """It runs modules as root."""
    assert not host.check_output(f"find {OURS} ! -user root -o -perm /022 ! -type l")


def test_nothing_is_left_of_what_was_refused(host: Host) -> None:
    """One interpreter and the link to it, though others were tried."""
    assert len(host.check_output(f"ls -A {OURS}").split()) == 2


@pytest.mark.timeout(300)  # six playbooks
def test_upgrade_and_removal(host: Host) -> None:
    """Another archive takes the place of the first; then all of it goes."""
    lab = host.backend.name.removeprefix("holdfast-").removesuffix("-host")
    archive = STATE / lab / "good.tar.gz"
    other = STATE / lab / "other.tar.gz"
    # a gzip file may have another one, here an empty one, behind it
    other.write_bytes(
        archive.read_bytes() + subprocess.check_output(["gzip", "-c"], stdin=subprocess.DEVNULL)
    )
    digest = subprocess.check_output(["sha256sum", str(other)], text=True).split()[0]
    before = host.check_output(f"readlink {OURS}/current")
    wanted = {"bootstrap_python": str(other), "bootstrap_sha256": digest}
    assert "changed=1 " in bootstrap(host, "--check", **wanted)
    assert host.check_output(f"readlink {OURS}/current") == before
    assert "changed=1 " in bootstrap(host, **wanted)
    assert host.check_output(f"readlink {OURS}/current") == f"{digest}/python"
    assert sorted(host.check_output(f"ls {OURS}").split()) == sorted([digest, "current"])
    assert "changed=0 " in bootstrap(host, **wanted)
    assert "changed=1 " in bootstrap(host, bootstrap_state="absent")
    assert not host.file(OURS).exists
    assert "changed=0 " in bootstrap(host, bootstrap_state="absent")
