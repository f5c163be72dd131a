# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificate authority: an offline root and an issuing intermediate, and what they sign.

On disk: <directory>/authority/{root-key,root,intermediate-key,intermediate}.pem, made beside it
and renamed into place as a whole, so a crash leaves either no authority or a complete one; crl.pem
beside them; and <directory>/issued.jsonl, a line per certificate. After creation root-key.pem can
be taken away to a safe: nothing here needs it again. x509_rollover tells of the second authority
that is there during a rollover.
"""

from __future__ import annotations

import contextlib
import datetime
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.files import leftovers
from ansible_collections.holdfast.chain.plugins.module_utils.plan import Change
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import Transaction
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    RefusedError,
    extension,
    key_fingerprint,
    key_type_of,
    load_certificate,
    load_private_key,
    make_key,
    not_after,
    not_before,
    private_pem,
    signing_hash,
    subject,
    to_pem,
)

with contextlib.suppress(ImportError):  # x509.CRYPTOGRAPHY_ERROR tells
    from cryptography import x509

# Clocks of CA and hosts may differ by this much before a new certificate is "not yet valid".
BACKDATE = datetime.timedelta(minutes=5)

_MAX_DAYS = 36500
_GENERATION = re.compile(r" G[1-9][0-9]{0,5}")

ROOT_KEY, ROOT = "root-key.pem", "root.pem"
INTERMEDIATE_KEY, INTERMEDIATE, CRL = "intermediate-key.pem", "intermediate.pem", "crl.pem"
_MODES = {
    ROOT_KEY: 0o600,
    ROOT: 0o644,
    INTERMEDIATE_KEY: 0o600,
    INTERMEDIATE: 0o644,
    CRL: 0o644,
}


@dataclass(frozen=True)
class Parameters:
    """What a CA is made from; days are counted from the moment of creation.

    generation: 1 for the first CA of a network, one more for each that followed it.
    """

    common_name: str
    trust_domain: str
    key_type: str
    root_days: int
    intermediate_days: int
    generation: int = 1

    @property
    def names(self) -> tuple[str, str]:
        """Common names of root and intermediate; those of successors tell themselves apart."""
        suffix = "" if self.generation == 1 else f" G{self.generation}"
        return f"{self.common_name} Root CA{suffix}", f"{self.common_name} Issuing CA{suffix}"

    def check(self) -> None:
        """ValueError where the days make no sense."""
        for name in ("root_days", "intermediate_days"):
            if not 1 <= getattr(self, name) <= _MAX_DAYS:
                raise ValueError(f"{name}: {getattr(self, name)}: expected 1 to {_MAX_DAYS}")
        if self.intermediate_days > self.root_days:
            raise ValueError(
                f"intermediate_days: {self.intermediate_days}: expected at most root_days, "
                f"{self.root_days}: a certificate must not outlive its issuer"
            )

    def differences(self, other: Parameters) -> list[str]:
        """One text per parameter in which the other one differs; generations are not asked for."""
        return [
            f"{name}: '{getattr(self, name)}' is asked for, the CA has '{getattr(other, name)}'"
            for name in vars(self)
            if name != "generation" and getattr(self, name) != getattr(other, name)
        ]


@dataclass(frozen=True)
class Authority:
    """A complete CA as found on disk, its keys opened.

    modes: mode of each of its files by path. resealed: keys that the old passphrase opened.
    debris: what interrupted runs left.
    """

    base: Path
    root: x509.Certificate
    intermediate: x509.Certificate
    root_key_present: bool
    modes: dict[str, int]
    intermediate_key: Any = field(default=None, repr=False)
    resealed: dict[Path, Any] = field(default_factory=dict, repr=False)
    debris: Sequence[Path] = ()

    @property
    def parameters(self) -> Parameters:
        """Read back from the certificates: they are the one record of what was asked."""
        constraints = extension(self.intermediate, x509.NameConstraints)
        bases = constraints.permitted_subtrees if constraints else None
        names = [str(attribute.value) for attribute in self.root.subject]
        common_name, _separator, suffix = names[0].rpartition(" Root CA") if names else ("",) * 3
        return Parameters(
            common_name=common_name,
            trust_domain=", ".join(str(base.value) for base in bases or ()),
            key_type=key_type_of(self.root.public_key()),
            root_days=_days(self.root),
            intermediate_days=_days(self.intermediate),
            generation=int(suffix[2:]) if _GENERATION.fullmatch(suffix) else 1,
        )


def _days(certificate: x509.Certificate) -> int:
    return (not_after(certificate) - not_before(certificate) - BACKDATE).days


def read_authority(
    base: Path,
    passphrase: str,
    old_passphrase: str | None = None,
    during_transaction: bool = False,
) -> Authority | None:
    """The CA in a folder, its keys opened to prove the passphrase; None where there is none.

    during_transaction: the temporary names in it are those of a transaction that is not over.

    Raises RefusedError when it is incomplete or its parts do not belong together: a CA is never
    repaired by guessing.
    """
    if not base.exists():
        return None
    missing = [
        str(base / name)
        for name in (ROOT, INTERMEDIATE, INTERMEDIATE_KEY)
        if not (base / name).is_file()
    ]
    if missing:
        raise _damaged(f"{', '.join(missing)} missing: restore from the backup of the CA")
    root = load_certificate((base / ROOT).read_text("ascii", "replace"), str(base / ROOT))
    intermediate = load_certificate(
        (base / INTERMEDIATE).read_text("ascii", "replace"), str(base / INTERMEDIATE)
    )
    resealed: dict[Path, Any] = {}

    def open_key(path: Path, certificate: x509.Certificate) -> Any:
        try:
            return _open_key(path, passphrase, certificate)
        except RefusedError as error:
            if old_passphrase is None or error.problems[0][0] != "wrong_passphrase":
                raise
        resealed[path] = _open_key(path, old_passphrase, certificate)
        return resealed[path]

    key = open_key(base / INTERMEDIATE_KEY, intermediate)
    root_key_present = (base / ROOT_KEY).exists()
    if root_key_present:
        open_key(base / ROOT_KEY, root)
    modes = {
        str(base / name): (base / name).stat().st_mode & 0o7777
        for name in _MODES
        if (base / name).exists()
    }
    for path in (base.parent, base):
        modes[str(path)] = path.stat().st_mode & 0o7777
    debris = () if during_transaction else tuple(leftovers(base))
    return Authority(base, root, intermediate, root_key_present, modes, key, resealed, debris)


def _damaged(text: str) -> RefusedError:
    return RefusedError([("ca_damaged", text)])


def _open_key(path: Path, passphrase: str, certificate: x509.Certificate) -> Any:
    try:
        key = load_private_key(path.read_bytes(), passphrase)
    except TypeError:
        raise _damaged(f"{path}: is not encrypted: encrypt it with the passphrase") from None
    except ValueError:
        raise RefusedError(
            [("wrong_passphrase", f"passphrase: does not open {path}, or the file is damaged")]
        ) from None
    if key_fingerprint(key.public_key()) != key_fingerprint(certificate.public_key()):
        raise _damaged(f"{path}: is not the key of the certificate beside it")
    return key


def creation(base: Path, wanted: Parameters, reason: str) -> Change:
    """The change that makes a CA in a folder."""
    root, intermediate = wanted.names
    after = {
        "root": f"{root}, {wanted.root_days} days, path length 1",
        "intermediate": f"{intermediate}, {wanted.intermediate_days} days, path length 0",
        "key_type": wanted.key_type,
        "name_constraints": [f"URI:{wanted.trust_domain}"],
    }
    return Change(str(base), None, after, reason)


def removals(found: Authority) -> list[Change]:
    """The changes that remove what interrupted runs left in a CA's folder."""
    why = "left by an interrupted run"
    return [Change(str(path), "present", None, why) for path in found.debris]


def repairs(found: Authority) -> list[Change]:
    """Modes to put right, keys that are to get the new passphrase, and debris."""
    changes = removals(found)
    changes += [
        Change(path, f"{mode:04o}", f"{_mode_for(path):04o}", "file mode")
        for path, mode in found.modes.items()
        if mode != _mode_for(path)
    ]
    why = "the passphrase is to be another one"
    changes += [
        Change(f"encryption of {path}", "the old passphrase", "the passphrase", why)
        for path in found.resealed
    ]
    return changes


def _mode_for(path: str) -> int:
    return _MODES.get(Path(path).name, 0o700)


def apply_repairs(transaction: Transaction, found: Authority, passphrase: str) -> None:
    """Carry out what repairs() planned."""
    for path in found.debris:
        transaction.remove(path)
    for name, mode in found.modes.items():
        if mode != _mode_for(name):
            transaction.set_attributes(name, _mode_for(name))
    for path, key in found.resealed.items():
        transaction.write_file(path, private_pem(key, passphrase), _MODES[path.name])


def apply_creation(
    transaction: Transaction,
    base: Path,
    wanted: Parameters,
    passphrase: str,
    moment: datetime.datetime,
) -> None:
    """Make a CA beside its place, then rename it there; what a crash left of it goes first."""
    directory = base.parent
    staging = directory / f".{base.name}.new"
    transaction.make_directory(directory, 0o700)
    for abandoned in [staging, *leftovers(directory)]:
        transaction.remove(abandoned)
    transaction.make_directory(staging, 0o700)
    for name, content in make_authority(wanted, passphrase, moment).items():
        transaction.write_file(staging / name, content, _MODES[name])
    transaction.move(staging, base)


def make_authority(
    wanted: Parameters, passphrase: str, moment: datetime.datetime
) -> dict[str, bytes]:
    """The files of a new CA: name to content, private keys encrypted with the passphrase."""
    root_key, intermediate_key = make_key(wanted.key_type), make_key(wanted.key_type)
    constraint = x509.NameConstraints(
        permitted_subtrees=[x509.UniformResourceIdentifier(wanted.trust_domain)],
        excluded_subtrees=None,
    )
    root_name, intermediate_name = map(subject, wanted.names)
    start = moment - BACKDATE

    def certificate(
        name: x509.Name, public_key: Any, days: int, path_length: int
    ) -> x509.Certificate:
        builder = certificate_builder(name, root_name, public_key, root_key.public_key())
        builder = builder.not_valid_before(start)
        builder = builder.not_valid_after(moment + datetime.timedelta(days=days))
        builder = builder.add_extension(x509.BasicConstraints(True, path_length), critical=True)
        builder = builder.add_extension(key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        builder = builder.add_extension(constraint, critical=True)
        return builder.sign(root_key, signing_hash(root_key))

    root = certificate(root_name, root_key.public_key(), wanted.root_days, 1)
    intermediate = certificate(
        intermediate_name,
        intermediate_key.public_key(),
        wanted.intermediate_days,
        0,
    )
    return {
        ROOT_KEY: private_pem(root_key, passphrase),
        ROOT: to_pem(root).encode("ascii"),
        INTERMEDIATE_KEY: private_pem(intermediate_key, passphrase),
        INTERMEDIATE: to_pem(intermediate).encode("ascii"),
    }


def certificate_builder(
    name: x509.Name, issuer: x509.Name, public_key: Any, issuer_key: Any
) -> x509.CertificateBuilder:
    """What all certificates have: names, a random 159-bit serial, both key identifiers."""
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer)
    builder = builder.public_key(public_key).serial_number(x509.random_serial_number())
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), False)
    return builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False
    )


def key_usage(**granted: bool) -> x509.KeyUsage:
    """The extension with the given bits set and all others clear."""
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: granted.get(name, False) for name in every})
