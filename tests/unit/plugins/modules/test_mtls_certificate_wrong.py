# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""mtls_certificate refuses each wrong certificate for its own reason; the good pair stays."""

from __future__ import annotations

import datetime
import os
from typing import Any, Callable

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    fingerprint,
    load_certificate,
    load_request,
    make_key,
    make_request,
    names_of,
    now,
    private_pem,
    to_pem,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_ca import key_usage
from ansible_collections.holdfast.chain.plugins.module_utils.x509_crl import Entry, make_crl
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

DAY = datetime.timedelta(days=1)


def _week() -> tuple[datetime.datetime, datetime.datetime]:
    return now() - DAY, now() + 6 * DAY


class Wrong:
    """Certificates with one fault each, over the key that waits on a host with a good identity."""

    def __init__(self, host: Any, stranger: Any) -> None:
        self.host, self.pki, self.stranger = host, host.pki, stranger
        request = host.request(force=True)["request"]
        self.key = load_request(request, "request").public_key()

    def leaf(self, **changed: Any) -> str:
        """A certificate over the waiting key."""
        return to_pem(self.pki.leaf(self.key, **{"names": self.host.alternatives, **changed}))

    def expired(self) -> Any:
        return self.host.install(self.leaf(start=now() - 9 * DAY, end=now() - DAY))

    def not_yet_valid(self) -> Any:
        return self.host.install(self.leaf(start=now() + DAY, end=now() + 2 * DAY))

    def outlives_issuer(self) -> Any:
        return self.host.install(self.leaf(end=now() + 3000 * DAY))

    def older_than_issuer(self) -> Any:
        return self.host.install(self.leaf(start=now() - 300 * DAY))

    def no_names(self) -> Any:
        return self.host.install(self.leaf(names=None))

    def other_names(self) -> Any:
        return self.host.install(self.leaf(names=[x509.DNSName("v2.demo.example")]))

    def more_names(self) -> Any:
        names = [*self.host.alternatives, x509.DNSName("v2.demo.example")]
        return self.host.install(self.leaf(names=names))

    def mail_address(self) -> Any:
        names = [*self.host.alternatives, x509.RFC822Name("v1@demo.example")]
        return self.host.install(self.leaf(names=names))

    def other_trust_domain(self) -> Any:
        spiffe_id = "spiffe://evil.example/chain/demo/node/v1"
        names = [x509.UniformResourceIdentifier(spiffe_id)]
        return self.host.install(self.leaf(names=names), dns=[], ip=[], spiffe_id=spiffe_id)

    def ca_bit(self) -> Any:
        return self.host.install(self.leaf(basic=x509.BasicConstraints(True, None)))

    def may_sign(self) -> Any:
        usage = key_usage(digital_signature=True, key_cert_sign=True)
        return self.host.install(self.leaf(usage=usage))

    def no_signature_usage(self) -> Any:
        return self.host.install(self.leaf(usage=key_usage(key_agreement=True)))

    def client_only(self) -> Any:
        return self.host.install(self.leaf(extended=(ExtendedKeyUsageOID.CLIENT_AUTH,)))

    def no_extended_usage(self) -> Any:
        return self.host.install(self.leaf(extended=()))

    def any_usage(self) -> Any:
        return self.host.install(self.leaf(extended=(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,)))

    def critical_extension(self) -> Any:
        return self.host.install(self.leaf(extra=((x509.OCSPNoCheck(), True),)))

    def weak_key(self) -> Any:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pending = self.host.directory / "pending"
        (pending / "key.pem").write_bytes(private_pem(key))
        names = names_of(load_certificate(self.leaf(), "x"))
        (pending / "request.pem").write_text(make_request(key, "v1", names))
        self.key = key.public_key()
        return self.host.install(self.leaf())

    def key_elsewhere(self) -> Any:
        self.key = make_key("p384").public_key()
        return self.host.install(self.leaf())

    def weak_hash(self) -> Any:
        return self.host.install(self.leaf(hash_algorithm=hashes.SHA224()))

    def forged(self) -> Any:
        """Claims the right issuer and key, is signed by another one."""
        identifier = x509.SubjectKeyIdentifier.from_public_key(self.pki.intermediate.public_key())
        forged = self.leaf(issuer_key=make_key("p384"), key_identifier=identifier.digest)
        return self.host.install(forged)

    def other_key_of_the_issuer(self) -> Any:
        return self.host.install(self.leaf(issuer_key=make_key("p384")))

    def other_intermediate(self) -> Any:
        key, issuer = self.pki.authority()
        return self.host.install(self.leaf(issuer=issuer, issuer_key=key))

    def other_root(self) -> Any:
        """Sound in itself and of the same names, but from another CA."""
        other = self.stranger
        leaf = other.leaf(self.key, names=self.host.alternatives)
        return self.host.install(
            to_pem(leaf),
            chain=to_pem(other.intermediate),
            root_certificate=to_pem(other.root),
        )

    def other_root_behind_ours(self) -> Any:
        other = self.stranger
        leaf = other.leaf(self.key, names=self.host.alternatives)
        return self.host.install(to_pem(leaf), chain=to_pem(other.intermediate))

    def intermediate_as_root(self) -> Any:
        """Pinning something that is not self-signed would cut the path short."""
        pinned = self.pki.intermediate
        return self.host.install(
            self.leaf(),
            root_certificate=to_pem(pinned),
            root_fingerprint=pinned.fingerprint(hashes.SHA256()).hex(),
        )

    def _below(self, key: Any, issuer: x509.Certificate) -> Any:
        leaf = self.leaf(issuer=issuer, issuer_key=key)
        return self.host.install(leaf, chain=to_pem(issuer))

    def issuer_no_ca(self) -> Any:
        return self._below(*self.pki.authority(basic=x509.BasicConstraints(False, None)))

    def issuer_may_not_sign(self) -> Any:
        return self._below(*self.pki.authority(usage=key_usage(digital_signature=True)))

    def issuer_expired(self) -> Any:
        key, issuer = self.pki.authority(end=now() - DAY)
        return self._below(key, issuer)

    def issuer_weak(self) -> Any:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        issuer = self.pki.leaf(
            key.public_key(),
            names=None,
            common_name="Weak CA",
            basic=x509.BasicConstraints(True, 0),
            usage=key_usage(key_cert_sign=True, crl_sign=True),
            extended=(),
            issuer=self.pki.root,
            issuer_key=self.pki.root_key,
            start=now() - DAY,
            end=now() + 100 * DAY,
        )
        return self._below(key, issuer)

    def path_too_long(self) -> Any:
        """A CA below the intermediate, which has path length 0."""
        key, sub = self.pki.authority(
            common_name="Sub CA",
            issuer=self.pki.intermediate,
            issuer_key=self.pki.intermediate_key,
        )
        leaf = self.leaf(issuer=sub, issuer_key=key)
        return self.host.install(leaf, chain=to_pem(sub) + to_pem(self.pki.intermediate))

    def chain_out_of_order(self) -> Any:
        key, sub = self.pki.authority(path_length=None, common_name="Sub CA")
        leaf = self.leaf(issuer=sub, issuer_key=key)
        return self.host.install(leaf, chain=to_pem(self.pki.intermediate) + to_pem(sub))

    def other_pin(self) -> Any:
        return self.host.install(self.leaf(), root_fingerprint="ab" * 32)

    def revoked(self) -> Any:
        """On the list that is given along with it."""
        leaf = self.leaf()
        return self.host.install(leaf, crl=self._list(leaf))

    def revoked_on_the_host(self) -> Any:
        """On the list that was published before."""
        leaf = self.leaf()
        assert self.host.publish(self._list(leaf))["changed"]
        return self.host.install(leaf)

    def _list(self, leaf: str, **changed: Any) -> str:
        serial = load_certificate(leaf, "leaf").serial_number
        entry = Entry(serial, now() - DAY, "key_compromise")
        issuer = changed.get("issuer", self.pki.intermediate)
        key = changed.get("key", self.pki.intermediate_key)
        return to_pem(make_crl(issuer, key, [entry], 1, changed.get("time", _week())))

    def stale_list(self) -> Any:
        leaf = self.leaf()
        other = self.leaf()
        return self.host.install(leaf, crl=self._list(other, time=(now() - 2 * DAY, now() - DAY)))

    def list_of_a_stranger(self) -> Any:
        theirs = self.stranger
        crl = self._list(self.leaf(), issuer=theirs.intermediate, key=theirs.intermediate_key)
        return self.host.install(self.leaf(), crl=crl)

    def mismatched_key(self) -> Any:
        """The key that waits was replaced since the request left."""
        leaf = self.leaf()
        pending = self.host.directory / "pending" / "key.pem"
        pending.write_bytes(private_pem(make_key("p384")))
        return self.host.install(leaf)

    def root_not_among_the_trusted(self) -> Any:
        other = self.stranger.root
        roots = [{"certificate": to_pem(other), "fingerprint": fingerprint(other)}]
        return self.host.install(self.leaf(), trusted_roots=roots)

    def no_pin(self) -> Any:
        return self.host.install(self.leaf(), root_fingerprint="sha256")

    def no_certificate(self) -> Any:
        return self.host.install("nothing of the kind")

    def two_certificates(self) -> Any:
        return self.host.install(self.leaf() + self.leaf())

    def broken_certificate(self) -> Any:
        lines = self.leaf().splitlines()
        return self.host.install("\n".join([*lines[:3], *lines[4:]]))

    def key_in_the_chain(self) -> Any:
        chain = to_pem(self.pki.intermediate) + private_pem(make_key("p384")).decode()
        return self.host.install(self.leaf(), chain=chain)


@pytest.mark.parametrize(
    ("fault", "reasons"),
    [
        ("expired", {"expired"}),
        ("not_yet_valid", {"not_yet_valid"}),
        ("outlives_issuer", {"outlives_issuer"}),
        ("older_than_issuer", {"outlives_issuer"}),
        ("no_names", {"names_missing"}),
        ("other_names", {"names_differ"}),
        ("more_names", {"names_differ"}),
        ("mail_address", {"names_differ"}),
        ("other_trust_domain", {"name_constraints"}),
        ("ca_bit", {"leaf_is_a_ca"}),
        ("may_sign", {"leaf_key_usage"}),
        ("no_signature_usage", {"leaf_key_usage"}),
        ("client_only", {"leaf_extended_key_usage"}),
        ("no_extended_usage", {"leaf_extended_key_usage"}),
        ("any_usage", {"leaf_extended_key_usage"}),
        ("critical_extension", {"unknown_critical_extension"}),
        ("weak_key", {"weak_key"}),
        ("key_elsewhere", {"key_missing"}),
        ("weak_hash", {"bad_signature"}),
        ("forged", {"bad_signature"}),
        ("other_key_of_the_issuer", {"issuer_key_mismatch"}),
        ("other_intermediate", {"issuer_mismatch"}),
        ("other_root", {"root_not_pinned"}),
        ("other_root_behind_ours", {"issuer_key_mismatch"}),
        ("intermediate_as_root", {"root_not_self_signed"}),
        ("issuer_no_ca", {"issuer_not_a_ca"}),
        ("issuer_may_not_sign", {"issuer_key_usage"}),
        ("issuer_expired", {"expired", "outlives_issuer"}),
        ("issuer_weak", {"weak_key"}),
        ("path_too_long", {"path_too_long"}),
        ("chain_out_of_order", {"issuer_mismatch", "path_too_long", "outlives_issuer"}),
        ("other_pin", {"root_not_pinned"}),
        ("no_pin", {"bad_fingerprint"}),
        ("revoked", {"revoked"}),
        ("revoked_on_the_host", {"revoked"}),
        ("stale_list", {"crl_expired"}),
        ("list_of_a_stranger", {"crl_issuer_unknown"}),
        ("mismatched_key", {"key_missing"}),
        ("root_not_among_the_trusted", {"root_not_trusted"}),
        ("no_certificate", {"unreadable"}),
        ("two_certificates", {"unreadable"}),
        ("broken_certificate", {"unreadable"}),
        ("key_in_the_chain", {"unreadable"}),
    ],
)
def test_a_wrong_certificate_never_replaces_a_good_one(
    host: Any,
    other_pki: Any,
    snapshot: Callable[..., Any],
    fault: str,
    reasons: set[str],
) -> None:
    """Each fault has its own reason and no other; not a byte of the identity changes."""
    host.renew()
    wrong = Wrong(host, other_pki)
    before = snapshot(host.directory / "generations")
    link = os.readlink(str(host.directory / "current"))
    result = getattr(wrong, fault)()
    assert result.failed
    assert {problem["reason"] for problem in result["problems"]} == reasons
    assert "PRIVATE KEY" not in result["msg"]
    assert snapshot(host.directory / "generations") == before
    assert os.readlink(str(host.directory / "current")) == link


def test_the_harness_for_wrong_certificates_can_make_a_good_one(host: Any, other_pki: Any) -> None:
    """Otherwise the tests above could pass for the wrong reason."""
    host.renew()
    assert host.install(Wrong(host, other_pki).leaf())["changed"]


def test_all_faults_are_told_at_once(host: Any, other_pki: Any) -> None:
    host.renew()
    wrong = Wrong(host, other_pki)
    leaf = wrong.leaf(
        names=None, start=now() - 2 * DAY, end=now() - DAY, basic=x509.BasicConstraints(True, None)
    )
    result = host.install(leaf)
    assert {problem["reason"] for problem in result["problems"]} == {
        "names_missing",
        "expired",
        "leaf_is_a_ca",
    }
