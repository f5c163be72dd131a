#!/usr/bin/python
# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mtls_crl
short_description: Revoke certificates, issue revocation lists, publish them on hosts
version_added: 0.2.0
description:
  - On the host of the CA (O(state=issued)) it revokes certificates and keeps the revocation list
    of each CA whose root is trusted up to date. A new list is made when something was revoked, when
    there is none, or when the present one is near the end of its time.
  - What is revoked is put on record in C(issued.jsonl) first. The list follows from it, so a crash
    in between is made good by the next run.
  - The number of a list is the time in seconds where that is higher than the previous number plus
    one. What a CA forgot that was restored from a backup, it learns from its hosts (O(published)).
  - On every other host (O(state=installed)) it verifies lists and replaces C(crl.pem) in the
    directory of the identity in one step. Lists that are not signed by a CA below a trusted root,
    are older than those that are there, or past their time are refused, and those that are there
    stay.
  - Programs that check revocation with OpenSSL refuse every certificate once the list of its issuer
    is past its time. Let this module run well before that.
extends_documentation_fragment:
  - holdfast.chain.attributes
options:
  directory:
    description:
      - With O(state=issued), the directory of the CA.
      - With O(state=installed), the directory of the identity.
    type: path
    required: true
  state:
    description: What to do.
    type: str
    choices: [issued, installed]
    default: issued
  passphrase:
    description: Opens the private keys of the CA. Required with O(state=issued).
    type: str
  revoke:
    description:
      - What to revoke. What is revoked or expired already changes nothing.
      - With V(key_compromise) and V(superseded), the host may have a new certificate for a new key
        at once. A name that is revoked for any other reason is refused by
        M(holdfast.chain.mtls_sign) until it is readmitted.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: All valid certificates that were issued to this name.
        type: str
      serial:
        description: The certificate with this serial number, in hex. Its name is not barred.
        type: str
      reason:
        description: Why; stands in the list.
        type: str
        choices:
          - unspecified
          - key_compromise
          - affiliation_changed
          - superseded
          - cessation_of_operation
          - privilege_withdrawn
        default: unspecified
  readmit:
    description: Names that may have certificates again. Revoked certificates stay revoked.
    type: list
    elements: str
    default: []
  next_update_hours:
    description: Hours until a list has to be replaced, shortened to the end of its CA if needed.
    type: int
    default: 720
  renew_before:
    description: Fraction of a list's time; with less than that left, a new one is made.
    type: float
    default: 0.5
  force:
    description: Make new lists in any case.
    type: bool
    default: false
  published:
    description:
      - The lists that hosts have, in PEM, as M(holdfast.chain.mtls_info) returns them. With
        O(state=issued).
      - If one is by this CA and newer than its own, the CA was restored from a backup. What is
        revoked there is recorded again, names are barred as by O(revoke), and a newer list is made.
        Without this, hosts refuse its lists as too old, or forget what was revoked.
    type: list
    elements: str
    default: []
  crl:
    description: Lists in PEM, one for each CA. Required with O(state=installed).
    type: str
  issuers:
    description:
      - Issuing certificates in PEM, to check the lists with. Each must lead to a trusted root.
      - Those in the chains of the identity and of the one before it are known anyway.
    type: str
  trusted_roots:
    description:
      - Roots to check with, each pinned by its SHA-256, beside those of the identity in use,
        C(current/ca.pem).
      - During a rollover, a host that does not trust the new root yet gets the lists of both CAs
        with it.
    type: list
    elements: dict
    suboptions:
      certificate:
        description: Root certificate in PEM.
        type: str
        required: true
      fingerprint:
        description: SHA-256 that pins it.
        type: str
        required: true
      not_after:
        description: Not looked at. The certificate itself says it.
        type: str
  owner:
    description: User that owns C(crl.pem). Its mode is always 0644.
    type: str
  group:
    description: Group of C(crl.pem).
    type: str
requirements:
  - cryptography >= 3.4
seealso:
  - module: holdfast.chain.mtls_ca
  - module: holdfast.chain.mtls_request
author:
  - Holdfast contributors (@holdfast)
"""

EXAMPLES = r"""
- name: Take v3 out, and keep the lists fresh
  holdfast.chain.mtls_crl:
    directory: /srv/holdfast/ca
    passphrase: "{{ vault_ca_passphrase }}"
    revoke:
      - name: v3
        reason: cessation_of_operation
  delegate_to: localhost
  run_once: true
  register: revoked

- name: Publish the lists on every host
  holdfast.chain.mtls_crl:
    state: installed
    directory: /etc/holdfast/v1/tls
    crl: "{{ revoked.crl }}"
    issuers: "{{ revoked.issuers }}"
  notify: Reload node

- name: Let v3 in again
  holdfast.chain.mtls_crl:
    directory: /srv/holdfast/ca
    passphrase: "{{ vault_ca_passphrase }}"
    readmit: [v3]
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
changes:
  description: What was, or in check mode would be, changed.
  returned: success
  type: list
  elements: dict
  contains:
    target:
      description: What is changed.
      type: str
    before:
      description: What was there; null if nothing was.
      type: raw
    after:
      description: What is there now; null if it was removed.
      type: raw
    reason:
      description: Why.
      type: str
crls:
  description: The lists after the task; in check mode, before it.
  returned: success
  type: list
  elements: dict
  contains:
    issuer:
      description: Name of the CA.
      type: str
    number:
      description: Number of the list.
      type: int
    this_update:
      description: When it was made, RFC 3339, backdated by five minutes as clocks differ.
      type: str
    next_update:
      description: When it has to be replaced.
      type: str
    age_hours:
      description: Hours since it was made.
      type: float
    hours_left:
      description: Hours until it has to be replaced; negative afterwards.
      type: float
    revoked:
      description: Serial numbers in hex.
      type: list
      elements: str
    sha256:
      description: SHA-256 of the list.
      type: str
crl:
  description: The lists in PEM; null if there are none yet.
  returned: with O(state=issued)
  type: str
issuers:
  description: Issuing certificates in PEM, for the option of this name.
  returned: with O(state=issued)
  type: str
trusted_roots:
  description: The roots hosts are to trust now, as M(holdfast.chain.mtls_ca) returns them.
  returned: with O(state=issued)
  type: list
  elements: dict
barred:
  description: Names that M(holdfast.chain.mtls_sign) refuses until they are readmitted.
  returned: with O(state=issued)
  type: list
  elements: str
revoked_now:
  description: Certificates that this task revoked, or in check mode would.
  returned: with O(state=issued)
  type: list
  elements: dict
  contains:
    name:
      description: Whose it was.
      type: str
    serial:
      description: Serial number in hex.
      type: str
    reason:
      description: Why.
      type: str
file:
  description: The file with the lists.
  returned: with O(state=installed)
  type: str
problems:
  description: Each cause of a refusal.
  returned: failure
  type: list
  elements: dict
  contains:
    reason:
      description:
        - A stable word, such as V(unknown_name), V(crl_bad_signature), V(crl_issuer_unknown),
          V(crl_older), V(crl_expired) or V(crl_incomplete).
      type: str
    message:
      description: The cause as a sentence.
      type: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.chain.plugins.module_utils.identity import read_identity
from ansible_collections.holdfast.chain.plugins.module_utils.identity_crl import (
    Issuers,
    apply_publish,
    plan_publish,
    read_published,
    trusted_issuers,
)
from ansible_collections.holdfast.chain.plugins.module_utils.mtls import (
    OWNER_OPTIONS,
    TRUSTED_ROOTS_OPTION,
    finish,
    load_trusted_roots,
)
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import Transaction
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    RefusedError,
    load_certificates,
    now,
    to_pem,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_crl import (
    REASONS,
    crl_facts,
    load_crls,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_revoke import (
    Wishes,
    apply_revoke,
    plan_revoke,
    read_lists,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_rollover import read_authorities


def issue(module: AnsibleModule) -> dict[str, Any]:
    """On the CA: read, plan, apply, prove."""
    params, moment = module.params, now()
    directory, wishes = Path(params["directory"]), Wishes.asked(params)
    found = read_authorities(directory, params["passphrase"])
    if found.active is None:
        raise RefusedError(
            [("no_ca", f"directory: there is no CA in {directory}: run mtls_ca first")]
        )
    for number in found.log.torn:
        module.warn(f"{directory}: line {number} of the log was cut short and tells nothing")
    lists = read_lists(found, moment)
    theirs = [crl for text in params["published"] for crl in load_crls(text, "published")]
    planned = plan_revoke(found, lists, wishes, moment, theirs)
    if planned.restored.warning:
        module.warn(planned.restored.warning)
    if planned.plan and not module.check_mode:
        with Transaction() as transaction:
            apply_revoke(transaction, planned, found, wishes, moment)
            found = read_authorities(directory, params["passphrase"], during_transaction=True)
            lists = read_lists(found, moment)
            if plan_revoke(found, lists, wishes.once_done(), moment, theirs).plan:
                raise RefusedError([("not_proved", f"{directory}: differs from what was written")])
        for name in transaction.left_behind:
            module.warn(f"could not remove {name}")
    present = [crl for crl in lists.values() if crl is not None]
    return {
        **planned.plan.result(),
        "crl": "".join(map(to_pem, present)) or None,
        "crls": [crl_facts(crl, moment) for crl in present],
        "issuers": found.issuers(),
        "trusted_roots": found.trusted_roots(),
        "barred": sorted(found.log.barred),
        "revoked_now": [
            {"name": one.name, "serial": f"{one.issued.serial:x}", "reason": one.reason}
            for one in planned.revocations
            if one.issued is not None
        ],
    }


def install(module: AnsibleModule) -> dict[str, Any]:
    """On a host: read, verify, plan, apply, prove."""
    params, moment = module.params, now()
    directory, owner = Path(params["directory"]), (params["owner"], params["group"])
    identity, present = read_identity(directory), read_published(directory)
    told = load_trusted_roots(params["trusted_roots"])
    own = list(identity.current.roots) if identity.current else []
    if not told and not own:
        text = f"trusted_roots: needed, since {directory} has no identity in use with roots in it"
        raise RefusedError([("no_identity", identity.fault or text)])
    # Those of the generation before as well: after a rollover's reissue it is from the old CA,
    # whose list counts until its root is gone from here.
    candidates = [one for each in identity.generations() for one in each.intermediates]
    if params["issuers"]:
        candidates += load_certificates(params["issuers"], "issuers")
    issuers = Issuers(
        known=trusted_issuers([*told, *(root for root in own if root not in told)], candidates),
        lasting=trusted_issuers(told or own, candidates),
    )
    given = load_crls(params["crl"], "crl")
    planned = plan_publish(present, given, issuers, identity, owner=owner, moment=moment)
    if planned.plan and not module.check_mode:
        with Transaction() as transaction:
            apply_publish(transaction, planned, present, owner)
            present = read_published(directory, during_transaction=True)
            again = plan_publish(present, given, issuers, identity, owner=owner, moment=moment)
            if again.plan:
                raise RefusedError([("not_proved", f"{directory}: differs from what was written")])
        for name in transaction.left_behind:
            module.warn(f"could not remove {name}")
    return {**planned.plan.result(), **present.facts(moment)}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["issued", "installed"], "default": "issued"},
            "passphrase": {"type": "str", "no_log": True},
            "revoke": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str"},
                    "serial": {"type": "str"},
                    "reason": {"type": "str", "choices": list(REASONS), "default": "unspecified"},
                },
                "mutually_exclusive": [("name", "serial")],
                "required_one_of": [("name", "serial")],
            },
            "readmit": {"type": "list", "elements": "str", "default": []},
            "next_update_hours": {"type": "int", "default": 720},
            "renew_before": {"type": "float", "default": 0.5},
            "force": {"type": "bool", "default": False},
            "published": {"type": "list", "elements": "str", "default": []},
            "crl": {"type": "str"},
            "issuers": {"type": "str"},
            "trusted_roots": TRUSTED_ROOTS_OPTION,
            **OWNER_OPTIONS,
        },
        required_if=[("state", "issued", ("passphrase",)), ("state", "installed", ("crl",))],
        supports_check_mode=True,
    )
    work = issue if module.params["state"] == "issued" else install
    finish(module, Path(module.params["directory"]), lambda: work(module))


if __name__ == "__main__":
    main()
