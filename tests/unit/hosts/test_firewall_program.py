# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's own programs: gates, the handshake, and that they run without the collection."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Iterator

import pytest
import trustme
from ansible_collections.holdfast.chain.plugins.module_utils import firewall_program as program
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_handshake import handshake
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_program import (
    GATES,
    RUN,
    Firewall,
)
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_read import programs
from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import HostError
from fake_firewall import FakeFirewall, with_firewall

PORTS = ["tcp . 30303", "tcp . 30304"]


@pytest.fixture
def host(tmp_path: Path) -> FakeFirewall:
    """A host whose table is loaded, with a gate that has a check."""
    made = with_firewall(tmp_path / "h")
    made.set_state("table", {"text": "table", "open": []})
    gates = {"node": {"service": "node", "check": ["/bin/look"], "wait": 0, "ports": PORTS}}
    made.put(GATES, json.dumps({"gates": gates}))
    made.checks["/bin/look"] = 0
    return made


def opened(host: FakeFirewall) -> list[str]:
    """What the stand-in kernel lets in."""
    return list(host.state("table")["open"])


def test_a_gate_opens_and_closes(host: FakeFirewall) -> None:
    firewall = host.firewall()
    assert firewall.open_gate("node") == "open"
    assert opened(host) == PORTS
    assert "30303" in (host.read(f"{RUN}/node.nft") or "")
    assert firewall.open_gate("node") == "open"
    firewall.close_gate("node")
    assert opened(host) == []
    assert not firewall.is_open("node")
    firewall.close_gate("node")
    firewall.close_gate("never heard of")


def test_a_failing_check_keeps_it_closed(host: FakeFirewall) -> None:
    host.checks["/bin/look"] = 1
    assert host.firewall().open_gate("node", background=False) == "closed"
    assert opened(host) == []


def test_an_unknown_gate_opens_nothing(host: FakeFirewall) -> None:
    assert host.firewall().open_gate("other") == "closed"
    assert opened(host) == []


def test_a_check_that_ends_after_the_service_does_not_open(host: FakeFirewall) -> None:
    """The service ended while the check was on its way: its port must not stay open for ever."""
    firewall = host.firewall()

    def ends_meanwhile(*_command: Any) -> tuple[int, str, str]:
        host.firewall().close_gate("node")
        return 0, "", ""

    host._bin_look = ends_meanwhile  # type: ignore[attr-defined] -- the stand-in finds it by name
    real = host.feed

    def feed(command: Any, *more: Any) -> tuple[int, str, str]:
        return ends_meanwhile() if command[0] == "/bin/look" else real(command, *more)

    firewall.run = feed
    firewall.open_gate("node")
    assert opened(host) == []
    assert not firewall.is_open("node")


def test_it_goes_on_trying_in_the_background(host: FakeFirewall) -> None:
    """By itself, in a process that the starting service does not wait for."""
    ready, say = os.pipe()
    tries = host.path("/run/tries")
    real = host.feed

    def feed(command: Any, *more: Any) -> tuple[int, str, str]:
        if command[0] != "/bin/look":
            return real(command, *more)
        with tries.open("a", encoding="ascii") as stream:
            stream.write(".")
        passes = len(tries.read_text(encoding="ascii")) > 2
        return (0, "", "") if passes else (1, "", "not yet")

    firewall = Firewall(host.root, feed)
    sync = firewall.sync

    def synced(*more: Any, **options: Any) -> str:
        fault = sync(*more, **options)
        os.write(say, b"!")
        return fault

    firewall.sync = synced  # type: ignore[method-assign]
    assert firewall.open_gate("node") == "waiting"
    assert os.read(ready, 1) == b"!"
    assert opened(host) == PORTS
    os.close(ready)
    os.close(say)


def test_a_closed_gate_ends_the_trying(host: FakeFirewall) -> None:
    firewall = host.firewall()
    (host.path(RUN)).mkdir()
    settings = firewall.gates()["node"]
    host.checks["/bin/look"] = 1
    (host.path(f"{RUN}/node.life")).write_text("mine", encoding="ascii")
    tried = []

    def feed(command: Any, *_more: Any) -> tuple[int, str, str]:
        tried.append(command)
        if len(tried) == 2:
            host.firewall().close_gate("node")
        return 1, "", "no"

    firewall.run = feed
    assert firewall._try("node", "mine", settings, None) == ""
    assert len(tried) == 2


def test_open_gates_survive_the_loading_of_rules(host: FakeFirewall) -> None:
    firewall = host.firewall()
    firewall.open_gate("node")
    host.set_state("table", {"text": "table", "open": []})
    assert firewall.sync() == ""
    assert opened(host) == PORTS


def test_a_table_that_is_gone_is_no_reason_to_fail(host: FakeFirewall) -> None:
    host.set_state("table", None)
    firewall = host.firewall()
    assert firewall.open_gate("node") == "open"
    firewall.close_gate("node")
    assert not firewall.is_open("node")


class Listener:
    """A mutual TLS server on loopback."""

    def __init__(self, folder: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(folder / "ca.pem")
        context.load_cert_chain(folder / "chain.pem", folder / "key.pem")
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _address = self._socket.accept()
            connection.settimeout(5)
            first = connection.recv(1, socket.MSG_PEEK)
            if first == b"Q":
                connection.close()
                return
            with contextlib.suppress(OSError), connection:
                self._context.wrap_socket(connection, server_side=True).close()

    def close(self) -> None:
        """End it, whatever it is doing."""
        with socket.create_connection(("127.0.0.1", self.port)) as last:
            last.sendall(b"Q")
            self._thread.join(timeout=10)
        self._socket.close()


def identity(folder: Path, authority: trustme.CA, *names: str) -> Path:
    """A folder as the role pki leaves it."""
    folder.mkdir()
    issued = authority.issue_cert(*names)
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    chain = b"".join(item.bytes() for item in issued.cert_chain_pems)
    (folder / "chain.pem").write_bytes(chain)
    return folder


@pytest.fixture
def listening() -> Iterator[Any]:
    """listening(folder) is the port of a listener with the identity in a folder."""
    made: list[Listener] = []

    def start(folder: Path) -> int:
        made.append(Listener(folder))
        return made[-1].port

    yield start
    for listener in made:
        listener.close()


def shake(port: int, folder: Path) -> str:
    """The fault of a handshake."""
    address = f"127.0.0.1:{port}"
    return handshake(argparse.Namespace(address=address, identity=str(folder), timeout=5))


def test_the_handshake_knows_its_own(tmp_path: Path, listening: Any) -> None:
    authority = trustme.CA()
    own = identity(tmp_path / "own", authority, "v1.example", "192.0.2.1")
    assert shake(listening(own), own) == ""
    renewed = identity(tmp_path / "renewed", authority, "v1.example", "192.0.2.1")
    assert shake(listening(own), renewed) == "", "a renewed one was not read yet"


def test_the_handshake_refuses_all_others(tmp_path: Path, listening: Any) -> None:
    authority = trustme.CA()
    own = identity(tmp_path / "own", authority, "v1.example")
    other = identity(tmp_path / "other", authority, "v2.example")
    foreign = identity(tmp_path / "foreign", trustme.CA(), "v1.example")
    assert "proves ['DNS:v2.example']: expected ['DNS:v1.example']" in shake(listening(other), own)
    assert "CERTIFICATE_VERIFY_FAILED" in shake(listening(foreign), own).upper()
    with socket.create_server(("127.0.0.1", 0)) as idle:
        port = idle.getsockname()[1]
    assert "refused" in shake(port, own)
    assert "No such file" in shake(port, tmp_path / "nowhere")


def test_programs_need_nothing_of_the_collection(tmp_path: Path) -> None:
    for path, text in programs(sys.executable).items():
        copy = tmp_path / Path(path).name
        copy.write_text(text, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-I", str(copy), "--help"], check=False, capture_output=True
        )
        assert done.returncode == 0, done.stderr
        assert text.startswith("#!/")
        assert "ansible" not in "".join(
            line for line in text.splitlines() if line.startswith(("import", "from"))
        )


@pytest.mark.parametrize("text", ["", None])
def test_a_program_without_its_text_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    """An empty one would undo nothing; and what loads modules may know no files, as Mitogen's."""

    class Loader:
        def get_source(self, name: str) -> str | None:
            return text if name.endswith("firewall_program") else "pass"

    monkeypatch.setattr(program.__spec__, "loader", Loader())
    with pytest.raises(HostError, match="firewall_program: its own text cannot be read here"):
        programs(sys.executable)


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        program.main(["open"])
    with pytest.raises(SystemExit):
        program.main(["no such thing"])
    capsys.readouterr()
    missing = str(tmp_path / "missing")
    assert program.check([missing]) == f"{missing}: {missing}: not found"
    assert program.check(["sh", "-c", "echo why >&2; exit 3"]) == "sh: why"
    assert program.check(["sh", "-c", "exit 3"]) == "sh: exit code 3"
    assert program.check(["true"]) == ""
