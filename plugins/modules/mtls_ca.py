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
  - Both certificates carry a critical name constraint that limits SPIFFE ids to the trust domain.
    The intermediate has path length 0, so it issues identities and no further CA.
  - It is made beside its final place and renamed as a whole, so that a crash leaves no half-made
    CA.
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
      - Name of the network, at most 53 characters. The CAs are called after it, with C(Root CA)
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
root_fingerprint:
  description: SHA-256 of the root certificate's DER encoding, 64 lower-case hex digits.
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
      description: A stable word, such as V(ca_differs), V(ca_damaged) or V(wrong_passphrase).
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
    now,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_ca import (
    Parameters,
    apply_authority,
    authority_facts,
    plan_authority,
    read_authority,
)


def wanted_parameters(params: dict[str, Any]) -> Parameters:
    """The options as parameters of a CA; ValueError where they do not fit."""
    check_common_name(params["common_name"] + " Issuing CA")
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


def work(module: AnsibleModule) -> dict[str, Any]:
    """Read, plan, apply, prove."""
    directory, passphrase = Path(module.params["directory"]), module.params["passphrase"]
    wanted = wanted_parameters(module.params)
    authority = read_authority(directory, passphrase)
    plan = plan_authority(authority, wanted, directory)
    if plan and not module.check_mode:
        with Transaction() as transaction:
            apply_authority(
                transaction, plan, wanted, passphrase, directory=directory, moment=now()
            )
            authority = read_authority(directory, passphrase)
            if plan_authority(authority, wanted, directory):
                raise RefusedError([("not_proved", f"{directory}: differs from what was written")])
        for name in transaction.left_behind:
            module.warn(f"could not remove {name}")
    return {**plan.result(), **(authority_facts(authority) if authority else {})}


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
        },
        supports_check_mode=True,
    )
    finish(module, Path(module.params["directory"]), lambda: work(module))


if __name__ == "__main__":
    main()
