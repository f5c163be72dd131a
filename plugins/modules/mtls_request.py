#!/usr/bin/python
# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mtls_request
short_description: Make a private key and signing request when a certificate is due
version_added: 0.1.0
description:
  - Compares the identity in use on the host with the wanted one and says whether, and why, a new
    certificate is due.
  - Only if one is due, a private key and a signing request are made on the host. Only the request
    leaves it. A request that waits already and still fits is used again.
  - What is in use is left alone until M(holdfast.chain.mtls_certificate) replaces it.
  - A certificate that a revocation list names is due as well, one in C(crl.pem)
    (M(holdfast.chain.mtls_crl)) or in O(crl).
  - Repairs mode and owner of the private key in use, and removes what an interrupted run left.
extends_documentation_fragment:
  - holdfast.chain.attributes
  - holdfast.chain.identity
options:
  common_name:
    description: Common name in the request, at most 64 characters. People read it, programs do not.
    type: str
    required: true
  key_type:
    description: Kind of the private key. A key in use of another kind is replaced.
    type: str
    choices: [p384, ed25519, rsa3072]
    default: p384
  root_fingerprint:
    description:
      - SHA-256 of the wanted root. A certificate in use that comes from another root is replaced,
        even if that root is still trusted here. During a rollover give the root of the CA that
        signs (RV(holdfast.chain.mtls_ca#module:root_fingerprint)).
      - Without it, or empty, the root is not looked at.
    type: str
  renew_before:
    description: Fraction of a certificate's lifetime; with less than that left, renewal is due.
    type: float
    default: 0.34
  force:
    description: Renewal is due in any case. Such a task changes something on every run.
    type: bool
    default: false
  crl:
    description:
      - Revocation lists in PEM that are looked at as well, such as those that
        M(holdfast.chain.mtls_crl) is to publish on the host after this.
      - Only a list that is signed by the issuer of the certificate in use counts.
    type: str
seealso:
  - module: holdfast.chain.mtls_sign
  - module: holdfast.chain.mtls_certificate
"""

EXAMPLES = r"""
- name: Key and request on every host, where one is due
  holdfast.chain.mtls_request:
    directory: /etc/holdfast/v1/tls
    common_name: v1
    dns: [v1.chain.example.org]
    ip: [192.0.2.11]
    spiffe_id: spiffe://chain.example.org/chain/demo/node/v1
    root_fingerprint: "{{ ca.root_fingerprint }}"
    owner: holdfast
    group: holdfast
  register: identity
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
renewal_needed:
  description: Whether a new certificate is due.
  returned: success
  type: bool
reasons:
  description:
    - Why it is due. V(missing), V(expired), V(expiring), V(not_yet_valid), V(names_differ),
      V(ca_differs), V(key_policy), V(pair_mismatch), V(revoked), V(forced). Empty if it is not.
  returned: success
  type: list
  elements: str
request:
  description: The waiting signing request in PEM; null when none is due or waits yet.
  returned: success
  type: str
current:
  description: The identity in use; null if there is none.
  returned: success
  type: dict
  contains:
    serial:
      description: Serial number, hex.
      type: str
    not_before:
      description: Start of validity, RFC 3339.
      type: str
    not_after:
      description: End of validity, RFC 3339.
      type: str
    spiffe_id:
      description: SPIFFE id; null if it has none.
      type: str
    dns:
      description: DNS names.
      type: list
      elements: str
    ip:
      description: Addresses.
      type: list
      elements: str
    key_type:
      description: Kind of the key.
      type: str
    sha256:
      description: SHA-256 of the certificate.
      type: str
    root_sha256:
      description: SHA-256 of each trusted root beside it.
      type: list
      elements: str
    issuer_root_sha256:
      description: SHA-256 of the root behind the certificate; null if none of the trusted ones is.
      type: str
    public_key_sha256:
      description: SHA-256 of the public key.
      type: str
    path:
      description: The generation, the directory with the files.
      type: str
problems:
  description: Each cause of a refusal.
  returned: failure
  type: list
  elements: dict
  contains:
    reason:
      description: A stable word, such as V(not_an_identity).
      type: str
    message:
      description: The cause as a sentence.
      type: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.chain.plugins.module_utils.identity import read_identity
from ansible_collections.holdfast.chain.plugins.module_utils.identity_crl import read_published
from ansible_collections.holdfast.chain.plugins.module_utils.identity_plan import (
    Owner,
    Wanted,
    apply_request,
    plan_request,
)
from ansible_collections.holdfast.chain.plugins.module_utils.mtls import (
    NAME_OPTIONS,
    OWNER_OPTIONS,
    finish,
)
from ansible_collections.holdfast.chain.plugins.module_utils.names import Names, check_common_name
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import Transaction
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    KEY_TYPES,
    RefusedError,
    check_fingerprint,
    now,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_crl import load_crls


def wanted_identity(params: dict[str, Any]) -> Wanted:
    """The options as a wanted identity; ValueError or RefusedError where they do not fit."""
    check_common_name(params["common_name"])
    if not 0 < params["renew_before"] < 1:
        raise ValueError(
            f"renew_before: {params['renew_before']}: expected a fraction above 0 and below 1"
        )
    pin = params["root_fingerprint"]
    return Wanted(
        names=Names.wanted(params["dns"], params["ip"], params["spiffe_id"]),
        key_type=params["key_type"],
        root_fingerprint=check_fingerprint(pin) if pin else None,
        renew_before=params["renew_before"],
        force=params["force"],
    )


def work(module: AnsibleModule) -> dict[str, Any]:
    """Read, plan, apply, prove."""
    directory, moment = Path(module.params["directory"]), now()
    wanted = wanted_identity(module.params)
    owner = Owner.resolve(module.params["owner"], module.params["group"])
    identity, published = read_identity(directory), read_published(directory)
    if published.fault:
        module.warn(f"revocation lists are not looked at: {published.fault}")
    given = load_crls(module.params["crl"], "crl") if module.params["crl"] else []
    crls = [*given, *published.crls]
    planned = plan_request(identity, wanted, owner, moment, crls)
    waiting = None if planned.make else identity.pending
    if planned.plan and not module.check_mode:
        with Transaction() as transaction:
            apply_request(
                transaction,
                planned,
                directory,
                wanted,
                common_name=module.params["common_name"],
                owner=owner,
            )
            after = read_identity(directory, during_transaction=True)
            owner = Owner.resolve(module.params["owner"], module.params["group"])
            if plan_request(after, wanted, owner, moment, crls).plan:
                raise RefusedError([("not_proved", f"{directory}: differs from what was written")])
            waiting = after.pending
        for name in transaction.left_behind:
            module.warn(f"could not remove {name}")
    return {
        **planned.plan.result(),
        "renewal_needed": bool(planned.reasons),
        "reasons": [reason for reason, _text in planned.reasons],
        "request": waiting.pem if waiting and planned.reasons else None,
        "current": identity.current.facts() if identity.current else None,
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "common_name": {"type": "str", "required": True},
            "key_type": {"type": "str", "choices": list(KEY_TYPES), "default": "p384"},
            "root_fingerprint": {"type": "str"},
            "renew_before": {"type": "float", "default": 0.34},
            "force": {"type": "bool", "default": False},
            "crl": {"type": "str"},
            **NAME_OPTIONS,
            **OWNER_OPTIONS,
        },
        supports_check_mode=True,
    )
    finish(module, Path(module.params["directory"]), lambda: work(module))


if __name__ == "__main__":
    main()
