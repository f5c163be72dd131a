# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mtls_info: what is on disk beside what a listener serves, which a test sets as it likes."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import threading
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    load_certificate,
    make_key,
    now,
    private_pem,
    to_pem,
)
from ansible_collections.holdfast.chain.plugins.modules import mtls_info

DAY = datetime.timedelta(days=1)


class Service:
    """A TLS listener. It demands a client's certificate if it has roots to judge it by.

    names: the SNI names it was asked for. clients: the certificate each client presented, or the
    error of a handshake that failed.
    """

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.context: ssl.SSLContext | None = None
        self.names: list[str | None] = []
        self.clients: list[Any] = []
        self.before_next: Callable[[], None] | None = None
        self.seen = threading.Semaphore(0)
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def use(self, chain: Path, key: Path, roots: Path | None = None) -> None:
        """Serve this from the next connection on."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(str(chain), str(key))
        context.sni_callback = lambda _socket, name, _context: self.names.append(name)
        if roots is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(str(roots))
        self.context = context

    def reload(self, directory: Path) -> None:
        """Serve what is current in the directory of an identity."""
        current = directory / "current"
        self.use(current / "chain.pem", current / "key.pem", current / "ca.pem")

    def _serve(self) -> None:
        while True:
            try:
                plain, _address = self.listening.accept()
            except OSError:
                return
            if self.before_next is not None:
                self.before_next()
            with plain:
                self._answer(plain)
            self.seen.release()

    def _answer(self, plain: socket.socket) -> None:
        if self.context is None:
            with contextlib.suppress(OSError):
                plain.sendall(b"220 no TLS here\r\n")
            return
        try:
            with self.context.wrap_socket(plain, server_side=True) as secured:
                self.clients.append(secured.getpeercert(binary_form=True))
        except OSError as error:
            self.clients.append(error)

    def close(self) -> None:
        """Ends the thread."""
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        self.thread.join()


@pytest.fixture
def service() -> Iterator[Service]:
    """A listener that speaks no TLS until a test gives it something to serve."""
    made = Service()
    yield made
    made.close()


@pytest.fixture
def look(host: Any, service: Service) -> Callable[..., Any]:
    """Run mtls_info on the host's directory and the service's port."""

    def run(check: bool = False, **changed: Any) -> Any:
        arguments = {"directory": str(host.directory), "port": service.port, **changed}
        chosen = {name: value for name, value in arguments.items() if value is not None}
        return host.run("mtls_info", chosen, check=check)

    return run


def _serve_leaf(service: Service, tmp_path: Path, pki: Any, **changed: Any) -> Any:
    key = make_key("p384")
    leaf = pki.leaf(key.public_key(), **changed)
    (tmp_path / "chain.pem").write_text(to_pem(leaf) + to_pem(pki.intermediate))
    (tmp_path / "key.pem").write_bytes(private_pem(key))
    service.use(tmp_path / "chain.pem", tmp_path / "key.pem")
    return leaf


def test_both_agree_and_nothing_is_touched(
    host: Any, service: Service, look: Callable[..., Any], snapshot: Callable[..., Any]
) -> None:
    """In check mode and out of it, again and again."""
    leaf = load_certificate(host.renew(), "leaf")
    service.reload(host.directory)
    before = snapshot(host.directory)
    for check in (True, False, False, True):
        found = look(check=check)
        assert not found.failed
        assert not found["changed"]
        assert found["same"] is True
        assert found["on_disk"]["fault"] is found["served"]["fault"] is None
        for side in ("on_disk", "served"):
            assert found[side]["serial"] == f"{leaf.serial_number:x}"
            assert found[side]["dns"] == host.names["dns"]
            assert found[side]["ip"] == host.names["ip"]
            assert found[side]["spiffe_id"] == host.spiffe_id
            assert 29.9 < found[side]["days_left"] <= 30
        assert found["served"]["trusted"] is True
        assert found["served"]["protocol"] == "TLSv1.3"
        assert found["served"]["issuer"] == "CN=Demo Issuing CA"
        assert "PRIVATE" not in found.text
    assert snapshot(host.directory) == before


def test_a_service_that_was_not_reloaded_is_seen(
    host: Any, service: Service, look: Callable[..., Any]
) -> None:
    old = load_certificate(host.renew(), "leaf")
    service.reload(host.directory)
    new = load_certificate(host.renew(force=True), "leaf")
    found = look()
    assert found["same"] is False
    assert found["on_disk"]["serial"] == f"{new.serial_number:x}"
    assert found["served"]["serial"] == f"{old.serial_number:x}"
    assert found["served"]["trusted"] is True
    refused = look(wait=0.6)
    assert [problem["reason"] for problem in refused["problems"]] == ["not_served"]
    assert f"{new.serial_number:x}" in refused["msg"]
    assert f"{old.serial_number:x}" in refused["msg"]
    assert "reloaded" in refused["msg"]


def test_waiting_ends_when_the_service_has_reloaded(
    host: Any, service: Service, look: Callable[..., Any]
) -> None:
    """The third connection finds the new certificate, and no fourth is made."""
    host.renew()
    service.reload(host.directory)
    host.renew(force=True)
    looks = []

    def reload_at_the_third() -> None:
        looks.append(1)
        if len(looks) == 3:
            service.reload(host.directory)

    service.before_next = reload_at_the_third
    assert look(wait=60)["same"] is True
    assert len(looks) == 3


def test_every_port_has_to_serve_it(host: Any, service: Service, look: Callable[..., Any]) -> None:
    """The one that does not is told, whichever it is."""
    host.renew()
    behind = Service()
    try:
        for one in (service, behind):
            one.reload(host.directory)
        assert look(port=service.port, also=[behind.port])["same"] is True
        host.renew(force=True)
        service.reload(host.directory)
        for first, second in ((service, behind), (behind, service)):
            found = look(port=first.port, also=[second.port])
            assert found["same"] is False
            assert found["served"]["sha256"] != found["on_disk"]["sha256"]
            refused = look(port=first.port, also=[second.port], wait=0.1)
            assert refused["problems"][0]["reason"] == "not_served"
            assert f"port {first.port}, {second.port}: " in refused["msg"]
        behind.reload(host.directory)
        assert look(port=service.port, also=[behind.port], wait=5)["same"] is True
    finally:
        behind.close()
    assert look(port=service.port, also=[behind.port])["same"] is None
    assert look(port=None, also=[1]).failed


@pytest.mark.parametrize("client", [True, False])
def test_the_identity_is_shown_to_a_listener_that_asks_for_it(
    host: Any, service: Service, look: Callable[..., Any], client: bool
) -> None:
    certificate = load_certificate(host.renew(), "leaf")
    service.reload(host.directory)
    look(client=client)
    assert service.seen.acquire(timeout=10)
    (shown,) = service.clients
    if client:
        assert load_certificate(ssl.DER_cert_to_PEM_cert(shown), "shown") == certificate
    else:
        assert isinstance(shown, ssl.SSLError)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, None),
        ({"host": "localhost"}, "localhost"),
        ({"server_name": "v1.demo.example"}, "v1.demo.example"),
        ({"host": "localhost", "server_name": ""}, None),
    ],
)
def test_the_name_that_is_asked_for(
    host: Any,
    service: Service,
    look: Callable[..., Any],
    options: dict[str, str],
    name: str | None,
) -> None:
    """Never an address, which TLS does not allow there."""
    host.renew()
    service.reload(host.directory)
    assert look(**options)["same"] is True
    assert service.names == [name]


def test_a_stranger_in_its_place_is_not_trusted(
    host: Any, service: Service, look: Callable[..., Any], tmp_path: Path, other_pki: Any
) -> None:
    host.renew()
    leaf = _serve_leaf(service, tmp_path, other_pki, names=host.alternatives)
    found = look()
    assert not found.failed
    assert found["same"] is False
    assert found["served"]["trusted"] is False
    assert str(host.directory) in found["served"]["fault"]
    assert found["served"]["serial"] == f"{leaf.serial_number:x}"


def test_an_expired_certificate_that_is_still_served(
    host: Any, service: Service, look: Callable[..., Any], tmp_path: Path, pki: Any
) -> None:
    host.renew()
    time = {"start": now() - 3 * DAY, "end": now() - 2 * DAY}
    _serve_leaf(service, tmp_path, pki, names=host.alternatives, **time)
    served = look()["served"]
    assert served["trusted"] is False
    assert "expired" in served["fault"]
    assert -2.01 < served["days_left"] <= -2


def test_nobody_listens(host: Any, look: Callable[..., Any]) -> None:
    """That is a finding, not a failure; waiting for it is."""
    host.renew()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    found = look(port=port)
    assert not found.failed
    assert found["same"] is None
    assert "refused" in found["served"]["fault"]
    assert found["served"]["trusted"] is None
    assert look(port=port, wait=0.1)["problems"][0]["reason"] == "not_served"


def test_a_listener_without_tls_and_one_that_is_silent(host: Any, look: Callable[..., Any]) -> None:
    host.renew()
    found = look()
    assert found["same"] is None
    assert found["served"]["fault"].startswith("127.0.0.1 port ")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        served = look(port=silent.getsockname()[1], timeout=0.2)["served"]
    assert "timed out" in served["fault"]


def test_one_side_alone(host: Any, service: Service, look: Callable[..., Any]) -> None:
    host.renew()
    service.reload(host.directory)
    disk = look(port=None)
    assert disk["served"] is None
    assert disk["same"] is None
    assert disk["on_disk"]["fault"] is None
    service.use(host.directory / "current/chain.pem", host.directory / "current/key.pem")
    served = look(directory=None)
    assert served["on_disk"] is served["crl"] is served["same"] is None
    assert served["served"]["fault"] is served["served"]["trusted"] is None
    assert served["served"]["serial"] == disk["on_disk"]["serial"]


def test_nothing_on_disk_or_damaged(
    host: Any, service: Service, look: Callable[..., Any], snapshot: Callable[..., Any]
) -> None:
    empty = look(port=None)
    assert "no certificate is installed" in empty["on_disk"]["fault"]
    assert not host.directory.exists()
    host.renew()
    (host.directory / "current" / "certificate.pem").write_text("damaged")
    before = snapshot(host.directory)
    damaged = look(port=None)
    assert "certificate.pem" in damaged["on_disk"]["fault"]
    assert snapshot(host.directory) == before


def test_lists_and_what_they_say_of_the_identity(host: Any, look: Callable[..., Any]) -> None:
    host.renew()
    host.publish(host.crl()["crl"])
    good = look(port=None)
    assert good["on_disk"]["revoked"] is False
    assert [len(crl["revoked"]) for crl in good["crl"]["crls"]] == [0]
    host.publish(host.crl(revoke=[{"name": "v1"}])["crl"])
    revoked = look(port=None)
    assert revoked["on_disk"]["revoked"] is True
    assert revoked["crl"]["crls"][0]["revoked"] == [revoked["on_disk"]["serial"]]
    (host.directory / "crl.pem").write_text("damaged")
    damaged = look(port=None)["crl"]
    assert damaged["crls"] == []
    assert "crl.pem" in damaged["fault"]


def test_the_clock_moves_past_the_end(
    host: Any, look: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    host.renew()
    moment = now() + 31 * DAY
    monkeypatch.setattr(mtls_info, "now", lambda: moment)
    assert -1.01 < look(port=None)["on_disk"]["days_left"] < -0.99


def test_unfit_options_are_refused(look: Callable[..., Any]) -> None:
    assert "one of the following" in look(directory=None, port=None)["msg"]
    assert look(port=None, wait=1)["msg"].startswith("wait: needs directory and port")
