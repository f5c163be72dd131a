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
    validity, CA bits, path length, key usage, name constraints, key strength, the exact names,
    revocation, and that its private key is on this host.
  - A certificate that fails is refused with every cause, and what is in use stays in use.
  - Key, certificate, chain and root become current together, by swapping one symbolic link. A crash
    at any point leaves a matching pair, and the next run removes what is half made.
  - Without a certificate, key and certificate in use stay and only the trusted roots are changed,
    after the same checks. That is how a rollover of the CA begins and ends.
  - The last two generations are kept. Installing the certificate of the earlier one again goes
    back to it.
extends_documentation_fragment:
  - holdfast.chain.attributes
  - holdfast.chain.identity
options:
  certificate:
    description:
      - The certificate in PEM.
      - Without it and O(chain), those in use stay. O(trusted_roots) is required then.
    type: str
  chain:
    description:
      - The intermediate certificates in PEM, from the issuer of the certificate upwards.
      - The certificate itself at the start and the root at the end are allowed and left out.
    type: str
  root_certificate:
    description:
      - The root certificate in PEM.
      - Not needed if it is among O(trusted_roots).
    type: str
  root_fingerprint:
    description:
      - SHA-256 that pins the root of the certificate, 64 hex digits, colons allowed.
      - Without it, any of O(trusted_roots) will do, which are pinned one by one.
    type: str
  trusted_roots:
    description:
      - All roots to be trusted, which C(current/ca.pem) holds then and no others. The one that the
        certificate comes from must be among them. RV(holdfast.chain.mtls_ca#module:trusted_roots)
        can be given as it is.
      - Without it, the root of the certificate alone is trusted.
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
  crl:
    description:
      - Revocation lists in PEM. A certificate that they name is refused, and so is a list that is
        past its time or not signed by a CA of the chain.
      - The lists that M(holdfast.chain.mtls_crl) published on the host are looked at in any case.
    type: str
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

- name: Trust old and new root, with the certificate in use
  holdfast.chain.mtls_certificate:
    directory: /etc/holdfast/v1/tls
    trusted_roots: "{{ ca.trusted_roots }}"
    dns: [v1.chain.example.org]
    ip: [192.0.2.11]
    spiffe_id: spiffe://chain.example.org/chain/demo/node/v1
    owner: holdfast
    group: holdfast
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
      description:
        - A stable word, such as V(expired), V(root_not_pinned), V(names_differ), V(revoked) or
          V(key_missing).
      type: str
    message:
      description: The cause as a sentence.
      type: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.chain.plugins.module_utils.identity import (
    Identity,
    find_key,
    read_identity,
)
from ansible_collections.holdfast.chain.plugins.module_utils.identity_crl import read_published
from ansible_collections.holdfast.chain.plugins.module_utils.identity_install import (
    Material,
    apply_install,
    plan_install,
)
from ansible_collections.holdfast.chain.plugins.module_utils.identity_plan import Owner
from ansible_collections.holdfast.chain.plugins.module_utils.mtls import (
    NAME_OPTIONS,
    OWNER_OPTIONS,
    TRUSTED_ROOTS_OPTION,
    finish,
    load_trusted_roots,
)
from ansible_collections.holdfast.chain.plugins.module_utils.names import Names
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import Transaction
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    USAGES,
    RefusedError,
    check_fingerprint,
    fingerprint,
    is_signed_by,
    key_fingerprint,
    load_certificate,
    load_certificates,
    now,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_crl import (
    crl_problems,
    load_crls,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_verify import CertPath, verify


def certification_path(
    params: dict[str, Any], identity: Identity, roots: list[Any]
) -> tuple[CertPath, str]:
    """What is to be in use, given or as it is, up to its root; and the pin of that root."""
    if params["certificate"] is None:
        current = identity.current
        if current is None:
            text = f"certificate: is needed: {params['directory']} has no certificate in use"
            raise RefusedError([("no_identity", identity.fault or text)])
        leaf, chain = current.leaf, list(current.intermediates)
    else:
        leaf = load_certificate(params["certificate"], "certificate")
        chain = load_certificates(params["chain"], "chain")
    if params["root_certificate"] is not None:
        root = load_certificate(params["root_certificate"], "root_certificate")
    else:
        root = _root_behind(chain[-1] if chain else leaf, roots)
    if chain and chain[0] == leaf:
        chain = chain[1:]
    if chain and chain[-1] == root:
        chain = chain[:-1]
    pin = params["root_fingerprint"]
    pin = fingerprint(root) if pin is None else check_fingerprint(pin)
    return CertPath(leaf, tuple(chain), root), pin


def _root_behind(last: Any, roots: list[Any]) -> Any:
    """The trusted root that issued the end of a chain, or is it; the first one if none did."""
    for root in roots:
        issued = root.subject == last.issuer and is_signed_by(last, root.public_key())
        if issued or root == last:
            return root
    return roots[0]


def verified_material(params: dict[str, Any], identity: Identity, crls: list[Any]) -> Material:
    """What is to be installed; RefusedError with everything that is wrong with it."""
    moment, roots = now(), load_trusted_roots(params["trusted_roots"])
    path, pin = certification_path(params, identity, roots)
    names = Names.wanted(params["dns"], params["ip"], params["spiffe_id"])
    given = [] if params["crl"] is None else load_crls(params["crl"], "crl")
    problems: list[Any] = verify(path, pin, names, params["usage"], moment, crls=[*given, *crls])
    for crl in given:
        problems += crl_problems(crl, [*path.intermediates, path.root], moment)
    if roots and path.root not in roots:
        text = "trusted_roots: the root of the certificate is not among them"
        problems.append(("root_not_trusted", text))
    key = find_key(Path(params["directory"]), key_fingerprint(path.leaf.public_key()))
    if key is None:
        text = (
            f"directory: no private key in {params['directory']} belongs to the certificate: it "
            "was issued for another host, or for a request that was replaced since"
        )
        problems.append(("key_missing", text))
    if problems or key is None:
        raise RefusedError(problems)
    others = sorted((root for root in roots if root != path.root), key=fingerprint)
    return Material(path.leaf, path.intermediates, [path.root, *others], key)


def work(module: AnsibleModule) -> dict[str, Any]:
    """Read, verify, plan, apply, prove."""
    directory = Path(module.params["directory"])
    identity, published = read_identity(directory), read_published(directory)
    if published.fault:
        module.warn(f"revocation lists are not looked at: {published.fault}")
    material = verified_material(module.params, identity, list(published.crls))
    owner = Owner.resolve(module.params["owner"], module.params["group"])
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
            "certificate": {"type": "str"},
            "chain": {"type": "str"},
            "root_certificate": {"type": "str"},
            "root_fingerprint": {"type": "str"},
            "trusted_roots": TRUSTED_ROOTS_OPTION,
            "crl": {"type": "str"},
            "usage": {
                "type": "list",
                "elements": "str",
                "choices": list(USAGES),
                "default": list(USAGES),
            },
            **NAME_OPTIONS,
            **OWNER_OPTIONS,
        },
        required_together=[("certificate", "chain")],
        required_one_of=[
            ("certificate", "trusted_roots"),
            ("root_certificate", "trusted_roots"),
            ("root_fingerprint", "trusted_roots"),
        ],
        supports_check_mode=True,
    )
    finish(module, Path(module.params["directory"]), lambda: work(module))


if __name__ == "__main__":
    main()
