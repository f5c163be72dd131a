#!/usr/bin/python
# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mtls_ca
short_description: Create the certificate authority of a network once
version_added: 0.1.0
description:
  - Makes a root and an issuing intermediate certificate authority with encrypted private keys.
  - An existing CA is never replaced or altered. Asking for other parameters than it was made with
    fails and says what differs.
  - The way to another one is a rollover in three phases, one per run. V(trust_both) makes a
    successor beside the CA in use, V(reissue) lets the successor sign, V(drop_old) retires the old
    one. The order is enforced, each phase can be repeated, and none goes back.
  - Both certificates carry a critical name constraint that limits SPIFFE ids to the trust domain.
    The intermediate has path length 0, so it issues identities and no further CA.
  - It is made beside its final place and renamed as a whole, so that a crash leaves no half-made
    CA.
  - Warns when the end of a certificate of the CA that signs is less than half a year away, or a
    tenth of its own time.
  - The root key is needed only at creation. Move C(authority/root-key.pem) to a safe offline place
    afterwards; all modules work without it.
extends_documentation_fragment:
  - holdfast.chain.attributes
options:
  directory:
    description:
      - Directory of the CA, made with mode 0700. Keys and certificates are in C(authority/) in it.
      - Back it up. What is missing in it is never made anew.
    type: path
    required: true
  common_name:
    description:
      - Name of the network, at most 49 characters. The CAs are called after it, with C(Root CA)
        and C(Issuing CA) at the end.
    type: str
    required: true
  trust_domain:
    description:
      - SPIFFE trust domain, a domain name in lower case with at least one dot. It need not exist
        in DNS.
      - DNS names and addresses in certificates are not limited by it.
    type: str
    required: true
  passphrase:
    description:
      - Encrypts the private keys on disk. At least 12 characters. It is not stored anywhere.
      - On an existing CA it must open the keys that are there.
    type: str
    required: true
  key_type:
    description: Kind of the private keys of both CAs.
    type: str
    choices: [p384, ed25519, rsa3072]
    default: p384
  root_days:
    description: Days from creation until the root expires.
    type: int
    default: 3650
  intermediate_days:
    description: Days from creation until the intermediate expires. It cannot outlive the root.
    type: int
    default: 1825
  state:
    description:
      - V(present) makes a CA where there is none. It leaves a rollover where it is.
      - V(trust_both) begins a rollover. Hosts are to trust both roots then; the old CA still signs.
        The successor may have other parameters, but the same trust domain.
      - V(reissue) makes the successor the one that signs. Every host is to get a new certificate
        then.
      - V(drop_old) ends it. Refused while the newest valid certificate of any name is from the old
        CA. Hosts are to trust the new root alone then. The old CA is kept in C(retired/).
    type: str
    choices: [present, trust_both, reissue, drop_old]
    default: present
  replaces:
    description:
      - SHA-256 of the root that is rolled over. Once that rollover is over, all its phases change
        nothing any more, so that a playbook can run twice without beginning another one.
    type: str
  in_use:
    description:
      - The roots that hosts trust already, lists of SHA-256 by the hosts' names, as
        M(holdfast.chain.mtls_info) returns them in RV(holdfast.chain.mtls_info#module:on_disk).
      - Refused, before a CA is made, unless each host trusts a root of this CA or one that was
        rolled over here. A CA made on another controller, or after its folder was lost, would cut
        all these hosts off.
      - Leave it out to make another CA on purpose.
    type: dict
    default: {}
  old_passphrase:
    description:
      - To change the passphrase. Keys that O(passphrase) does not open and this one does are
        encrypted with O(passphrase).
      - A root key that is kept elsewhere has to be brought back for it, or keeps the old one.
    type: str
requirements:
  - cryptography >= 3.4
seealso:
  - module: holdfast.chain.mtls_sign
author:
  - Holdfast contributors (@holdfast)
"""

EXAMPLES = r"""
- name: Certificate authority of the network, on the controller
  holdfast.chain.mtls_ca:
    directory: /srv/holdfast/ca
    common_name: Example consortium
    trust_domain: chain.example.org
    passphrase: "{{ vault_ca_passphrase }}"
  delegate_to: localhost
  run_once: true
  register: ca

- name: The pin every host gets
  ansible.builtin.debug:
    var: ca.root_fingerprint

- name: The same, but not if hosts have identities of another one
  holdfast.chain.mtls_ca:
    directory: /srv/holdfast/ca
    common_name: Example consortium
    trust_domain: chain.example.org
    passphrase: "{{ vault_ca_passphrase }}"
    in_use:
      v1: "{{ hostvars['v1'].identity.on_disk.root_sha256 | default([]) }}"
  delegate_to: localhost
  run_once: true

- name: First phase of a rollover
  holdfast.chain.mtls_ca:
    directory: /srv/holdfast/ca
    common_name: Example consortium
    trust_domain: chain.example.org
    passphrase: "{{ vault_ca_passphrase }}"
    state: trust_both
    replaces: "{{ ca.root_fingerprint }}"
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
      description: Path of what is changed.
      type: str
    before:
      description: What was there; null if nothing was.
      type: raw
    after:
      description: What is there now.
      type: raw
    reason:
      description: Why.
      type: str
phase:
  description: V(single), or the phase of a rollover, V(trust_both) or V(reissue).
  returned: when the CA exists
  type: str
trusted_roots:
  description: The roots hosts are to trust now, that of the CA that signs first.
  returned: when the CA exists
  type: list
  elements: dict
  contains:
    certificate:
      description: Root certificate in PEM.
      type: str
    fingerprint:
      description: SHA-256 of its DER encoding.
      type: str
    not_after:
      description: When it expires, RFC 3339.
      type: str
issuers:
  description: Issuing certificates of all CAs whose roots are trusted, in PEM.
  returned: when the CA exists
  type: str
passphrase_age_days:
  description: Whole days since the keys got the passphrase they are encrypted with.
  returned: when the CA exists
  type: int
retired:
  description: First 16 hex digits of the fingerprints of the roots that were rolled over.
  returned: when the CA exists
  type: list
  elements: str
root_fingerprint:
  description:
    - SHA-256 of the root certificate's DER encoding, 64 lower-case hex digits.
    - This and the following are of the CA that signs.
  returned: when the CA exists
  type: str
root_certificate:
  description: Root certificate in PEM.
  returned: when the CA exists
  type: str
root_not_after:
  description: When the root expires, RFC 3339.
  returned: when the CA exists
  type: str
root_key_present:
  description: Whether the root's private key is still beside the intermediate's.
  returned: when the CA exists
  type: bool
intermediate_certificate:
  description: Issuing certificate in PEM.
  returned: when the CA exists
  type: str
intermediate_not_after:
  description: When the intermediate expires, RFC 3339.
  returned: when the CA exists
  type: str
problems:
  description: Each cause of a refusal.
  returned: failure
  type: list
  elements: dict
  contains:
    reason:
      description:
        - A stable word, such as V(ca_differs), V(ca_damaged), V(wrong_passphrase), V(wrong_phase),
          V(still_in_use), V(another_ca) or V(unknown_root).
      type: str
    message:
      description: The cause as a sentence.
      type: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.chain.plugins.module_utils.mtls import check_passphrase, finish
from ansible_collections.holdfast.chain.plugins.module_utils.names import (
    check_common_name,
    check_trust_domain,
)
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import Transaction
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    KEY_TYPES,
    RefusedError,
    check_fingerprint,
    now,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_ca import Parameters
from ansible_collections.holdfast.chain.plugins.module_utils.x509_rollover import (
    STATES,
    apply_authorities,
    check_lineage,
    plan_authorities,
    read_authorities,
)

_LONGEST = " Issuing CA G99"


def wanted_parameters(params: dict[str, Any]) -> Parameters:
    """The options as parameters of a CA; ValueError where they do not fit."""
    check_common_name(params["common_name"] + _LONGEST)
    check_trust_domain(params["trust_domain"])
    check_passphrase(params["passphrase"])
    wanted = Parameters(
        **{
            name: params[name]
            for name in (
                "common_name",
                "trust_domain",
                "key_type",
                "root_days",
                "intermediate_days",
            )
        }
    )
    wanted.check()
    return wanted


def roots_in_use(given: dict[str, Any]) -> dict[str, list[str]]:
    """The option in_use, each fingerprint as modules write it; RefusedError for what is none."""
    found = {}
    for name, roots in given.items():
        if not isinstance(roots, list):
            text = f"in_use: {name}: '{roots}': expected a list of fingerprints"
            raise RefusedError([("bad_fingerprint", text)])
        found[name] = [check_fingerprint(str(root), f"in_use: {name}") for root in roots]
    return found


def work(module: AnsibleModule) -> dict[str, Any]:
    """Read, plan, apply, prove."""
    params, moment = module.params, now()
    directory, passphrase = Path(params["directory"]), params["passphrase"]
    wanted = wanted_parameters(params)
    replaces = params["replaces"] and check_fingerprint(params["replaces"], "replaces")
    found = read_authorities(directory, passphrase, params["old_passphrase"])
    check_lineage(found, roots_in_use(params["in_use"]))
    planned = plan_authorities(found, wanted, params["state"], replaces, moment)
    if planned.plan and not module.check_mode:
        with Transaction() as transaction:
            apply_authorities(transaction, planned, found, passphrase, moment)
            found = read_authorities(directory, passphrase, during_transaction=True)
            if plan_authorities(found, wanted, params["state"], replaces, moment).plan:
                raise RefusedError([("not_proved", f"{directory}: differs from what was written")])
        for name in transaction.left_behind:
            module.warn(f"could not remove {name}")
    for warning in found.endings(moment):
        module.warn(warning)
    return {**planned.plan.result(), **found.facts(moment)}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "common_name": {"type": "str", "required": True},
            "trust_domain": {"type": "str", "required": True},
            "passphrase": {"type": "str", "required": True, "no_log": True},
            "key_type": {"type": "str", "choices": list(KEY_TYPES), "default": "p384"},
            "root_days": {"type": "int", "default": 3650},
            "intermediate_days": {"type": "int", "default": 1825},
            "state": {"type": "str", "choices": list(STATES), "default": "present"},
            "replaces": {"type": "str"},
            "in_use": {"type": "dict", "default": {}},
            "old_passphrase": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    finish(module, Path(module.params["directory"]), lambda: work(module))


if __name__ == "__main__":
    main()
