# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The authorities of a network, and how one follows another without a gap in trust.

    phase        in the CA's directory          who signs     whose root is trusted
    single       authority/                     authority     authority
    trust_both   authority/ successor/          authority     both
    reissue      authority/ predecessor/        authority     both      (authority is the new one)

trust_both makes successor/. reissue renames authority/ to predecessor/, successor/ to authority/.
drop_old renames predecessor/ to retired/<start of its root's fingerprint>/, and the phase is single
again. The names of the folders are the one record of the phase. A crash between the two renames of
reissue leaves predecessor/ and successor/: that reads as reissue, and the next run finishes it.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils.plan import Change, Plan
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import Transaction
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    RefusedError,
    fingerprint,
    not_after,
    not_before,
    timestamp,
    to_pem,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_ca import (
    BACKDATE,
    INTERMEDIATE,
    ROOT,
    Authority,
    Parameters,
    apply_creation,
    apply_repairs,
    creation,
    read_authority,
    repairs,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_log import (
    Log,
    line,
    read_log,
    record_lines,
)

STATES = ("present", "trust_both", "reissue", "drop_old")
SINGLE, TRUST_BOTH, REISSUE = "single", "trust_both", "reissue"
_SOON = datetime.timedelta(days=182)

_SIGNS = "it is to sign from now on"
_NEW_WAY = (
    "A CA is never replaced silently: ask for what it has, or roll it over to a successor with "
    "these parameters (playbook rotate_ca: both roots are trusted while every host gets a new "
    "certificate, then the old one is dropped)"
)


@dataclass(frozen=True)
class Authorities:
    """All there is in the directory of a CA.

    active: who signs now. other: who else is trusted, the successor or the predecessor.
    interrupted: a switch was cut short. retired: fingerprints' first digits, by folder name.
    """

    directory: Path
    phase: str = SINGLE
    active: Authority | None = None
    other: Authority | None = None
    interrupted: bool = False
    retired: Sequence[str] = ()
    log: Log = field(default_factory=Log)

    def all(self) -> list[Authority]:
        """Everyone who is trusted, who signs first."""
        return [one for one in (self.active, self.other) if one is not None]

    def sealed_since(self) -> datetime.datetime | None:
        """When the keys got the passphrase they have now."""
        if self.log.sealed is not None or not self.all():
            return self.log.sealed
        return min(not_before(one.root) for one in self.all()) + BACKDATE

    def facts(self, moment: datetime.datetime) -> dict[str, Any]:
        """What modules return about them; empty where there is no CA."""
        active, sealed = self.active, self.sealed_since()
        if active is None or sealed is None:
            return {}
        return {
            "phase": self.phase,
            "root_fingerprint": fingerprint(active.root),
            "root_certificate": to_pem(active.root),
            "root_not_after": timestamp(not_after(active.root)),
            "root_key_present": active.root_key_present,
            "intermediate_certificate": to_pem(active.intermediate),
            "intermediate_not_after": timestamp(not_after(active.intermediate)),
            "trusted_roots": self.trusted_roots(),
            "issuers": self.issuers(),
            "passphrase_age_days": (moment - sealed).days,
            "retired": list(self.retired),
        }

    def endings(self, moment: datetime.datetime) -> list[str]:
        """What is to be said of certificates of who signs that end soon, or have ended."""
        found = []
        if self.active is None:
            return found
        base = self.active.base
        for name, one in ((ROOT, self.active.root), (INTERMEDIATE, self.active.intermediate)):
            end = not_after(one)
            told = f"{base / name}: ends {timestamp(end)}, and every certificate of this CA with it"
            if end <= moment:
                found.append(f"{told}: only another CA, made in another directory, can follow it")
            elif end - moment < min(_SOON, (end - not_before(one)) / 10):
                found.append(f"{told}: replace the CA before that (playbook rotate_ca)")
        return found

    def trusted_roots(self) -> list[dict[str, str]]:
        """The roots hosts are to trust now, that of who signs first."""
        return [
            {
                "certificate": to_pem(one.root),
                "fingerprint": fingerprint(one.root),
                "not_after": timestamp(not_after(one.root)),
            }
            for one in self.all()
        ]

    def issuers(self) -> str:
        """The intermediates that may have signed what is in use, in PEM."""
        return "".join(to_pem(one.intermediate) for one in self.all())


def read_authorities(
    directory: Path,
    passphrase: str,
    old_passphrase: str | None = None,
    during_transaction: bool = False,
) -> Authorities:
    """All authorities in a directory; RefusedError where one is damaged."""
    authority, successor, predecessor = (
        read_authority(directory / name, passphrase, old_passphrase, during_transaction)
        for name in ("authority", "successor", "predecessor")
    )
    retired = sorted(path.name for path in (directory / "retired").glob("*"))
    found = Authorities(
        directory, active=authority, retired=tuple(retired), log=read_log(directory)
    )
    if successor and predecessor and authority:
        raise _refused(
            "ca_damaged",
            f"{directory}: has authority, successor and predecessor: no rollover leaves all "
            "three; restore from the backup of the CA",
        )
    if successor and predecessor:
        return _with(found, REISSUE, successor, predecessor, interrupted=True)
    if authority is None and (successor or predecessor):
        raise _refused(
            "ca_damaged", f"{directory / 'authority'}: missing: restore from the backup of the CA"
        )
    if successor:
        return _with(found, TRUST_BOTH, authority, successor)
    if predecessor:
        return _with(found, REISSUE, authority, predecessor)
    return found


def _with(
    found: Authorities,
    phase: str,
    active: Authority | None,
    other: Authority,
    interrupted: bool = False,
) -> Authorities:
    return Authorities(found.directory, phase, active, other, interrupted, found.retired, found.log)


def _refused(reason: str, text: str) -> RefusedError:
    return RefusedError([(reason, text)])


class Move(NamedTuple):
    """A folder that is renamed, and why."""

    old: Path
    new: Path
    reason: str


@dataclass(frozen=True)
class CaPlan:
    """plan: what changes. create: the folder of a new CA and its parameters. moves: in order."""

    plan: Plan
    create: tuple[Path, Parameters] | None = None
    moves: Sequence[Move] = ()


def plan_authorities(
    found: Authorities,
    wanted: Parameters,
    state: str,
    replaces: str | None,
    moment: datetime.datetime,
) -> CaPlan:
    """What mtls_ca has to do; pure. replaces: fingerprint of the root that is rolled over.

    Raises RefusedError for another CA than the wanted one, and for a phase out of its order.
    """
    base = found.directory / "authority"
    if found.active is None:
        if state != "present":
            raise _refused("no_ca", f"directory: there is no CA in {found.directory} to roll over")
        change = creation(base, wanted, "there is no certificate authority yet")
        return CaPlan(Plan([change]), (base, wanted))
    changes = [change for one in found.all() for change in repairs(one)]
    moves: list[Move] = []
    if found.interrupted:
        moves.append(Move(found.directory / "successor", base, _SIGNS))
    create = None
    if state == "present" or _is_done(found, state, replaces):
        _check_parameters(found.all(), wanted)
    elif state == TRUST_BOTH:
        create = _successor(found, wanted)
    else:
        _check_parameters(found.all(), wanted)
        moves += _reissue(found) if state == REISSUE else _drop(found, replaces, moment)
    if create:
        changes.append(creation(*create, "a successor is to be trusted beside the CA in use"))
    changes += [Change(str(old), "present", f"moved to {new}", why) for old, new, why in moves]
    return CaPlan(Plan(_unique(changes)), create, moves)


def check_lineage(found: Authorities, in_use: Mapping[str, Sequence[str]]) -> None:
    """RefusedError unless every host that has an identity trusts a root of this CA; pure.

    in_use: fingerprints of the roots that hosts trust, by their names. Roots that were rolled over
    are its own, too. Where there is no CA, one would be made that all these hosts do not trust.
    """
    own = {fingerprint(one.root)[:_SHORT] for one in found.all()} | set(found.retired)
    strangers: dict[str, list[str]] = {}
    for name, roots in sorted(in_use.items()):
        if roots and not any(root[:_SHORT] in own for root in roots):
            strangers.setdefault(", ".join(sorted(roots)), []).append(name)
    if strangers:
        told = "; ".join(f"{', '.join(names)}: {roots}" for roots, names in strangers.items())
        active = found.active
        has = "there is none" if active is None else f"the one there has {fingerprint(active.root)}"
        raise _refused(
            "another_ca",
            f"in_use: hosts have identities of an authority with another root ({told}). It was "
            f"expected in {found.directory}; {has}. Bring that folder here from where it was made, "
            "or from its backup, or say where it is. Another authority would cut every host off "
            "from the others; where that is wanted, leave in_use out (role pki: pki_ca_new)",
        )


def _unique(changes: Sequence[Change]) -> list[Change]:
    """Authorities share the directory they are in: its mode is to be told once."""
    return list({change.target: change for change in changes}.values())


def _check_parameters(authorities: Sequence[Authority], wanted: Parameters) -> None:
    """The wanted CA must be one of those that are there; what the first has different is told."""
    if any(not wanted.differences(one.parameters) for one in authorities):
        return
    differences = wanted.differences(authorities[0].parameters)
    raise RefusedError([("ca_differs", f"{text}. {_NEW_WAY}") for text in differences])


def _is_done(found: Authorities, state: str, replaces: str | None) -> bool:
    """Whether the rollover of `replaces` is over, or this phase of it behind us."""
    if replaces is None or found.active is None:
        return False
    active = fingerprint(found.active.root)
    other = None if found.other is None else fingerprint(found.other.root)
    if found.phase == SINGLE and active != replaces:
        if replaces[:_SHORT] in found.retired:
            return True
    elif replaces == (other if found.phase == REISSUE else active):
        return state == TRUST_BOTH and found.phase == REISSUE
    raise _refused(
        "unknown_root",
        f"replaces: {replaces}: is not the root that is rolled over: in use is {active}, in phase "
        f"{found.phase}",
    )


_SHORT = 16  # of a fingerprint's digits, to name a folder by


def _successor(found: Authorities, wanted: Parameters) -> tuple[Path, Parameters] | None:
    if found.phase == TRUST_BOTH and found.other is not None:
        _check_parameters([found.other], wanted)
    if found.phase != SINGLE or found.active is None:
        return None
    present = found.active.parameters
    if wanted.trust_domain != present.trust_domain:
        raise _refused(
            "ca_differs",
            f"trust_domain: '{wanted.trust_domain}' is asked for, the CA has "
            f"'{present.trust_domain}': it is part of every name in the network, and no rollover "
            "changes it",
        )
    return found.directory / "successor", replace(wanted, generation=present.generation + 1)


def _reissue(found: Authorities) -> list[Move]:
    if found.phase == SINGLE:
        raise _refused(
            "wrong_phase",
            "state: reissue: there is no successor: trust_both comes first, and its roots on every "
            "host",
        )
    if found.phase == REISSUE:
        return []
    authority, predecessor, successor = (
        found.directory / name for name in ("authority", "predecessor", "successor")
    )
    return [
        Move(authority, predecessor, "its certificates are to be replaced"),
        Move(successor, authority, _SIGNS),
    ]


def _drop(found: Authorities, replaces: str | None, moment: datetime.datetime) -> list[Move]:
    if found.phase == TRUST_BOTH or (found.phase == SINGLE and replaces is not None):
        raise _refused(
            "wrong_phase", "state: drop_old: the old CA still signs: reissue comes first"
        )
    if found.phase == SINGLE or found.other is None or found.active is None:
        return []
    active = fingerprint(found.active.intermediate)
    newest = {one.name: one for one in found.log.valid(moment)}
    old = [one for one in newest.values() if one.issuer_sha256 != active]
    if old:
        listed = ", ".join(f"{one.name} (until {timestamp(one.not_after)})" for one in old)
        raise _refused(
            "still_in_use",
            f"state: drop_old: the newest certificate of {listed} is from the old CA: renew it, or "
            "revoke it if the host is gone (playbook revoke, which takes its name in any case)",
        )
    folder = found.directory / "retired" / fingerprint(found.other.root)[:_SHORT]
    reason = "its root is not to be trusted any more"
    return [Move(found.directory / "predecessor", folder, reason)]


def apply_authorities(
    transaction: Transaction,
    planned: CaPlan,
    found: Authorities,
    passphrase: str,
    moment: datetime.datetime,
) -> None:
    """Carry out what plan_authorities planned."""
    for one in found.all():
        apply_repairs(transaction, one, passphrase)
    sealed = found.sealed_since()
    if any(one.resealed for one in found.all()):
        record_lines(transaction, found.directory, line("sealed", moment))
    elif planned.create and found.log.sealed is None and sealed is not None:
        # A successor is younger than the passphrase it is sealed with.
        record_lines(transaction, found.directory, line("sealed", sealed))
    if planned.create:
        base, wanted = planned.create
        apply_creation(transaction, base, wanted, passphrase, moment)
    for move in planned.moves:
        transaction.make_directory(move.new.parent, 0o700)
        transaction.move(move.old, move.new)
