# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role node: what a running node was started with, and what of that makes a restart due."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from lab.shell import ROOT

VARIABLES = ROOT / "roles" / "node" / "vars" / "main.yml"
LABEL = "system_u:object_r:{}:s0 /opt/holdfast/current/bin/holdfast-node\n"


class Node:
    """A node's notes, made and compared by the role's own commands."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.notes = place / "notes"
        self.notes.mkdir()
        self.inputs = [place / name for name in ("config.toml", "chain.pem", "ca.pem", "crl.pem")]
        for path in self.inputs[:3]:  # there is no list yet
            path.write_text(path.name)
        (place / "bin").mkdir()

    def labelled(self, answer: str) -> None:
        """What `ls -Z` does from here on."""
        program = self.place / "bin" / "ls"
        program.write_text(f"#!/bin/sh\n{answer}\n")
        program.chmod(0o755)

    def render(self, name: str, **more: Any) -> Any:
        """A variable of the role."""
        values = {
            **yaml.safe_load(VARIABLES.read_text()),
            "node_command": "/opt/holdfast/current/bin/holdfast-node",
            "ansible_check_mode": False,
            "__node_notes": str(self.notes),
            "__node_restart_inputs": [str(self.inputs[0])],
            "__node_reload_inputs": [str(path) for path in self.inputs[1:]],
            **more,
        }
        trusted = {
            key: trust_as_template(value) if isinstance(value, str) else value
            for key, value in values.items()
        }
        return Templar(DataLoader(), trusted).template(trusted[name])

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run it as the service, and as the role."""
        env = {
            "PATH": f"{self.place}/bin:{os.environ['PATH']}",
            "RUNTIME_DIRECTORY": str(self.notes),
            "LC_ALL": "C",
        }
        return subprocess.run(
            ["sh", "-c", script], env=env, capture_output=True, text=True, check=False
        )

    def start(self) -> None:
        """What the service does before its program."""
        for name in ("__node_note_start", "__node_note_reload"):
            done = self.shell(self.render(name))
            assert (done.returncode, done.stderr) == (0, "")

    def due(self) -> tuple[bool, bool]:
        """Whether a restart is due, and whether a reload is."""
        done = self.shell(self.render("__node_compare"))
        assert done.returncode in (0, 1), done.stderr
        inputs = {"stdout_lines": done.stdout.splitlines(), "rc": done.returncode}
        assert self.render("__node_runs", __node_inputs=inputs) is True
        return (
            self.render("__node_restart_due", __node_inputs=inputs),
            self.render("__node_reload_due", __node_inputs=inputs),
        )


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(f"printf '{LABEL.format('bin_t')}'", id="SELinux"),
        pytest.param("echo '? /opt/holdfast/current/bin/holdfast-node'", id="no SELinux"),
        pytest.param("echo 'unrecognized option: Z' >&2; exit 1", id="no such option"),
    ],
)
def test_nothing_is_due_of_itself(node, answer):
    node.labelled(answer)
    node.start()
    assert node.due() == (False, False)


def test_a_restart_is_due_once_its_program_has_another_label(node):
    """And is so until it was started, whoever labelled it and however that run ended."""
    node.labelled(f"printf '{LABEL.format('bin_t')}'")
    node.start()
    node.labelled(f"printf '{LABEL.format('holdfast_exec_t')}'")
    assert node.due() == (True, False)
    assert node.due() == (True, False)
    node.start()
    assert node.due() == (False, False)


def test_a_restart_is_due_where_the_label_was_not_noted(node):
    """Of a node that runs since before this was noted."""
    node.labelled("echo '? /opt/holdfast/current/bin/holdfast-node'")
    node.start()
    (node.notes / "label").unlink()
    assert node.due() == (True, False)


def test_configuration_by_a_restart_certificates_by_a_reload(node):
    node.labelled("exit 1")
    node.start()
    node.inputs[1].write_text("another")
    assert node.due() == (False, True)
    node.inputs[0].write_text("another")
    assert node.due() == (True, True)
    node.inputs[0].unlink()
    assert node.due() == (True, True)


def test_what_cannot_be_read_does_not_start(node):
    """The service manager is told, rather than a note left out."""
    node.inputs[0].unlink()
    assert node.shell(node.render("__node_note_start")).returncode != 0
