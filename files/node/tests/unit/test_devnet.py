# SPDX-License-Identifier: Apache-2.0
"""The devnet's folder, ports and processes; a whole one runs in tests/network."""

import os
import signal
import socket
import sys
import threading
import time

import pytest
from cryptography import x509

from holdfast_node import devnet, devnet_files
from holdfast_node.config import examine, load
from holdfast_node.devnet import Devnet, check_ports, run_devnet
from holdfast_node.devnet_files import claim, prepare
from holdfast_node.errors import ConfigError, HoldfastError


def snapshot(folder, *names):
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.parametrize("count", [1, 4, 7])
def test_every_configuration_of_the_folder_is_without_fault(tmp_path, count):
    layout = prepare(tmp_path, count, 26_600)
    assert len(layout.members) == count
    for member in layout.members:
        config, faults, warnings = examine(member.config)
        assert (config.name, config.role) == (member.name, "validator")
        assert (faults, warnings) == ([], [])
        assert len(config.peers) == count - 1


def test_no_two_members_share_a_port(tmp_path):
    layout = prepare(tmp_path, 16, 26_600)
    ports = [port for member in layout.members for port in member.ports]
    assert len(set(ports)) == len(ports) == 48


def test_odd_names_of_folders_are_no_trouble(tmp_path):
    """Quotes, backslashes and control characters survive the way through TOML."""
    folder = tmp_path / 'a "b" \\c\t\x7fé # d'
    layout = prepare(folder, 1, 26_600)
    assert load(layout.members[0].config).data_dir == folder / "v1/data"


def test_used_again_a_folder_keeps_keys_and_genesis_but_not_certificates(tmp_path):
    kept = ("genesis.json", "funded.key", "guest.key", "v1/validator.key")
    prepare(tmp_path, 4, 26_600)
    before = snapshot(tmp_path, *kept)
    root = (tmp_path / "v1/tls/ca.pem").read_bytes()
    layout = prepare(tmp_path, 4, 27_000)
    assert snapshot(tmp_path, *kept) == before
    assert (tmp_path / "v1/tls/ca.pem").read_bytes() != root
    assert load(layout.members[3].config).p2p.listen.port == 27_030


def test_a_folder_of_another_size_is_refused_and_left_alone(tmp_path):
    prepare(tmp_path, 4, 26_600)
    with pytest.raises(ConfigError, match="--validators = 5: expected 4, as in "):
        prepare(tmp_path, 5, 26_600)
    assert not (tmp_path / "v5").exists()


def test_a_folder_half_made_is_completed(tmp_path):
    prepare(tmp_path, 4, 26_600)
    (tmp_path / "genesis.json").unlink()
    (tmp_path / "v3/validator.key").unlink()
    layout = prepare(tmp_path, 4, 26_600)
    assert all(examine(member.config)[1] == [] for member in layout.members)


def test_private_files_are_private_and_the_authoritys_key_is_nowhere(tmp_path):
    prepare(tmp_path, 4, 26_600)
    private = [path for path in tmp_path.rglob("*") if path.suffix == ".key"]
    private += tmp_path.rglob("key.pem")
    assert len(private) == 4 + 2 + 4
    assert all(path.stat().st_mode & 0o077 == 0 for path in private)
    root = x509.load_pem_x509_certificate((tmp_path / "v1/tls/ca.pem").read_bytes())
    found = [path for path in tmp_path.rglob("*") if path.is_file() and path not in private]
    assert not [path for path in found if b"PRIVATE KEY" in path.read_bytes()]
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_foreign_folder_is_not_used(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="expected a new or empty folder"):
        claim(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_serves_one_devnet_at_a_time(tmp_path):
    first = claim(tmp_path / "d")
    with pytest.raises(ConfigError, match="in use by another devnet"):
        claim(tmp_path / "d")
    os.close(first)
    os.close(claim(tmp_path / "d"))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--dir = .*: Not a directory"):
        claim(tmp_path / "file/d")


def test_a_port_that_is_taken_is_named_with_the_way_out():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        expected = rf"port {port} for v1: Address already in use: .*choose another --base-port"
        with pytest.raises(ConfigError, match=expected):
            check_ports(1, port - 1)


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Members that run a given line of Python instead of the node."""

    def make(program):
        script = tmp_path / "python"
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}"\n')
        script.chmod(0o755)
        monkeypatch.setattr(devnet.sys, "executable", str(script))
        return prepare(tmp_path / "d", 2, 26_600)

    return make


def alive(processes):
    return [p.pid for p in processes if p.poll() is None]


def test_a_member_that_ends_is_told_with_the_end_of_its_log(stand_in):
    net = Devnet(stand_in("print('out of paper'); raise SystemExit(3)"), threading.Event())
    net.start()
    with pytest.raises(HoldfastError, match=r"v[12] ended with code 3; (.*\n)+.*out of paper"):
        net.wait_until_ready()
    assert net.end() == []


def test_members_that_do_not_get_ready_are_named(stand_in, monkeypatch):
    monkeypatch.setattr(devnet, "READY_S", 0.5)
    net = Devnet(stand_in("import time; time.sleep(60)"), threading.Event())
    net.start()
    with pytest.raises(HoldfastError, match="v1: its API does not answer yet; v2: its API"):
        net.wait_until_ready()
    assert net.end() == []


def test_members_that_will_not_stop_are_killed_in_time(stand_in, monkeypatch):
    monkeypatch.setattr(devnet, "STOP_S", 0.5)
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True)"
    layout = stand_in(deaf + "; time.sleep(60)")
    net = Devnet(layout, threading.Event())
    net.start()
    while any(member.log.stat().st_size == 0 for member in layout.members):
        net.pause(0.02)
    start = time.monotonic()
    assert net.end() == ["v1", "v2"]
    assert time.monotonic() - start < 5
    assert alive(net._processes.values()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_and_removes_the_temporary_folder(stand_in, monkeypatch, number):
    stand_in("import time; time.sleep(60)")
    made = []
    original = Devnet.start

    def start(self):
        made.append(self)
        original(self)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(Devnet, "start", start)
    handler = signal.getsignal(number)
    said = []
    run_devnet(None, 2, free_base(), said.append, once=False)
    assert said[-1] == "stopping"
    assert alive(made[0]._processes.values()) == []
    assert not made[0].layout.folder.exists()
    assert signal.getsignal(number) == handler


def test_a_failure_ends_all_too(stand_in, monkeypatch, tmp_path):
    stand_in("raise SystemExit(1)")
    with pytest.raises(HoldfastError, match="ended with code 1"):
        run_devnet(tmp_path / "kept", 2, free_base(), lambda _line: None, once=True)
    assert (tmp_path / "kept/v1/node.log").exists()
    os.close(claim(tmp_path / "kept"))


def test_the_introduction_names_what_to_try(tmp_path):
    layout = devnet_files.prepare(tmp_path, 4, 26_600)
    text = devnet.introduce(layout)
    for member in layout.members:
        assert member.url in text
    assert str(layout.funded) in text
    assert layout.guest_address in text


def free_base():
    """Two members' ports that are free just now."""
    for base in range(28_000, 29_000, 20):
        try:
            check_ports(2, base)
        except ConfigError:
            continue
        return base
    raise AssertionError("no free ports")
