#!/usr/bin/python
# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mtls_certificate
short_description: Verify a certificate and install it with its key and chain as one
version_added: 0.1.0
description:
  - Verifies a signed certificate before anything changes. Signatures up to the pinned root,
    validity, CA bits, path length, key usage, name constraints, key strength, the exact names, and
    that its private key is on this host.
  - A certificate that fails is refused with every cause, and what is in use stays in use.
  - Key, certificate, chain and root become current together, by swapping one symbolic link. A crash
    at any point leaves a matching pair, and the next run removes what is half made.
  - The last two generations are kept. Installing the certificate of the earlier one again goes
    back to it.
extends_documentation_fragment:
  - holdfast.chain.attributes
  - holdfast.chain.identity
options:
  certificate:
    description: The certificate in PEM.
    type: str
    required: true
  chain:
    description:
      - The intermediate certificates in PEM, from the issuer of the certificate upwards.
      - The certificate itself at the start and the root at the end are allowed and left out.
    type: str
    required: true
  root_certificate:
    description: The root certificate in PEM.
    type: str
    required: true
  root_fingerprint:
    description: SHA-256 that pins the root, 64 hex digits, colons allowed.
    type: str
    required: true
  usage:
    description: Ends of a connection the certificate must be good for, no less and no more.
    type: list
    elements: str
    choices: [server, client]
    default: [server, client]
seealso:
  - module: holdfast.chain.mtls_request
  - module: holdfast.chain.mtls_sign
"""

EXAMPLES = r"""
- name: Install what the CA signed
  holdfast.chain.mtls_certificate:
    directory: /etc/holdfast/v1/tls
    certificate: "{{ signed.certificates['v1'].certificate }}"
    chain: "{{ signed.certificates['v1'].chain }}"
    root_certificate: "{{ signed.root_certificate }}"
    root_fingerprint: "{{ ca.root_fingerprint }}"
    dns: [v1.chain.example.org]
    ip: [192.0.2.11]
    spiffe_id: spiffe://chain.example.org/chain/demo/node/v1
    owner: holdfast
    group: holdfast
  when: identity.renewal_needed
  notify: Reload node
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
current:
  description: The identity in use after the task; in check mode, before it.
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
      description:
        - A stable word, such as V(expired), V(root_not_pinned), V(names_differ) or V(key_missing).
      type: str
    message:
      description: The cause as a sentence.
      type: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.chain.plugins.module_utils.identity import (
    find_key,
    read_identity,
)
from ansible_collections.holdfast.chain.plugins.module_utils.identity_plan import (
    Material,
    Owner,
    apply_install,
    plan_install,
)
from ansible_collections.holdfast.chain.plugins.module_utils.mtls import (
    NAME_OPTIONS,
    OWNER_OPTIONS,
    finish,
)
from ansible_collections.holdfast.chain.plugins.module_utils.names import Names
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import Transaction
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    USAGES,
    RefusedError,
    check_fingerprint,
    key_fingerprint,
    load_certificate,
    load_certificates,
    now,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_verify import CertPath, verify


def certification_path(params: dict[str, Any]) -> CertPath:
    """The three PEM options as one path, without duplicates of its ends in the chain."""
    leaf = load_certificate(params["certificate"], "certificate")
    root = load_certificate(params["root_certificate"], "root_certificate")
    chain = load_certificates(params["chain"], "chain")
    if chain[0] == leaf:
        chain = chain[1:]
    if chain and chain[-1] == root:
        chain = chain[:-1]
    return CertPath(leaf, tuple(chain), root)


def verified_material(params: dict[str, Any]) -> Material:
    """What is to be installed; RefusedError with everything that is wrong with it."""
    path = certification_path(params)
    problems = verify(
        path,
        check_fingerprint(params["root_fingerprint"]),
        Names.wanted(params["dns"], params["ip"], params["spiffe_id"]),
        params["usage"],
        now(),
    )
    key = find_key(Path(params["directory"]), key_fingerprint(path.leaf.public_key()))
    if key is None:
        text = (
            f"directory: no private key in {params['directory']} belongs to the certificate: it "
            "was issued for another host, or for a request that was replaced since"
        )
        problems.append(("key_missing", text))
    if problems or key is None:
        raise RefusedError(problems)
    return Material(path.leaf, path.intermediates, path.root, key)


def work(module: AnsibleModule) -> dict[str, Any]:
    """Read, verify, plan, apply, prove."""
    directory = Path(module.params["directory"])
    material = verified_material(module.params)
    owner = Owner.resolve(module.params["owner"], module.params["group"])
    identity = read_identity(directory)
    planned = plan_install(identity, material, owner)
    if planned.plan and not module.check_mode:
        with Transaction() as transaction:
            apply_install(transaction, planned, directory, material, owner)
            identity = read_identity(directory, during_transaction=True)
            if plan_install(identity, material, owner).plan:
                raise RefusedError([("not_proved", f"{directory}: differs from what was written")])
        for name in transaction.left_behind:
            module.warn(f"could not remove {name}")
    return {
        **planned.plan.result(),
        "current": identity.current.facts() if identity.current else None,
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "certificate": {"type": "str", "required": True},
            "chain": {"type": "str", "required": True},
            "root_certificate": {"type": "str", "required": True},
            "root_fingerprint": {"type": "str", "required": True},
            "usage": {
                "type": "list",
                "elements": "str",
                "choices": list(USAGES),
                "default": list(USAGES),
            },
            **NAME_OPTIONS,
            **OWNER_OPTIONS,
        },
        supports_check_mode=True,
    )
    finish(module, Path(module.params["directory"]), lambda: work(module))


if __name__ == "__main__":
    main()
