#!/usr/bin/python
# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mtls_sign
short_description: Sign the requests of a whole fleet in one call
version_added: 0.1.0
description:
  - Signs requests with the intermediate CA that M(holdfast.chain.mtls_ca) made, all of them or
    none.
  - A request is refused unless it is signed by its own key, asks for no name beyond what its entry
    allows, and asks for nothing else that an identity does not get.
  - A key whose certificate was revoked is refused, and so is a name that was
    (M(holdfast.chain.mtls_crl)).
  - Every certificate is verified up to the root before it is returned, and recorded in
    C(issued.jsonl) in the directory of the CA.
  - Signing is not idempotent, a call with requests always changes. Pass only the requests of hosts
    whose certificate is due; with none, nothing changes.
extends_documentation_fragment:
  - holdfast.chain.attributes
options:
  directory:
    description: Directory of the CA.
    type: path
    required: true
  passphrase:
    description: Opens the private key of the intermediate.
    type: str
    required: true
  requests:
    description: What to sign.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the host, unique in the list; becomes the common name.
        type: str
        required: true
      request:
        description: Signing request in PEM.
        type: str
        required: true
      dns:
        description: DNS names the host may ask for.
        type: list
        elements: str
        default: []
      ip:
        description: Addresses the host may ask for.
        type: list
        elements: str
        default: []
      spiffe_id:
        description: SPIFFE id the host must ask for.
        type: str
      usage:
        description: Ends of a connection the certificate is good for.
        type: list
        elements: str
        choices: [server, client]
        default: [server, client]
  validity_hours:
    description:
      - Hours from now until the certificates expire, shortened to the end of the
        CA if needed, with a warning.
      - They are valid from five minutes ago, as clocks differ.
    type: int
    default: 720
requirements:
  - cryptography >= 3.4
seealso:
  - module: holdfast.chain.mtls_request
  - module: holdfast.chain.mtls_certificate
author:
  - Holdfast contributors (@holdfast)
"""

EXAMPLES = r"""
- name: Sign what the hosts asked for
  holdfast.chain.mtls_sign:
    directory: /srv/holdfast/ca
    passphrase: "{{ vault_ca_passphrase }}"
    requests:
      - name: v1
        request: "{{ hostvars['v1'].identity.request }}"
        dns: [v1.chain.example.org]
        ip: [192.0.2.11]
        spiffe_id: spiffe://chain.example.org/chain/demo/node/v1
  delegate_to: localhost
  run_once: true
  register: signed
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
certificates:
  description: Name of each request to what was issued; empty in check mode.
  returned: success
  type: dict
  sample:
    v1:
      certificate: "-----BEGIN CERTIFICATE-----..."
      chain: "-----BEGIN CERTIFICATE-----..."
      serial: 6f2c...
      not_after: "2026-03-01T12:00:00Z"
trusted_roots:
  description: The roots hosts are to trust now, as M(holdfast.chain.mtls_ca) returns them.
  returned: when the CA exists
  type: list
  elements: dict
root_certificate:
  description: Root certificate in PEM.
  returned: when the CA exists
  type: str
root_fingerprint:
  description: SHA-256 of the root certificate's DER encoding, 64 lower-case hex digits.
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
        - A stable word, such as V(names_not_allowed), V(bad_signature), V(weak_key), V(duplicate),
          V(key_revoked) or V(name_revoked).
      type: str
    message:
      description: The cause as a sentence.
      type: str
"""

import datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.chain.plugins.module_utils.mtls import NAME_OPTIONS, finish
from ansible_collections.holdfast.chain.plugins.module_utils.names import Names, check_common_name
from ansible_collections.holdfast.chain.plugins.module_utils.plan import Change, Plan
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import Transaction
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    USAGES,
    RefusedError,
    fingerprint,
    load_request,
    names_of,
    not_after,
    now,
    timestamp,
    to_pem,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_issue import (
    Order,
    issue,
    order_problems,
    record,
    validity,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509_log import record_lines
from ansible_collections.holdfast.chain.plugins.module_utils.x509_rollover import read_authorities
from ansible_collections.holdfast.chain.plugins.module_utils.x509_verify import CertPath, verify

_MAX_HOURS = 24 * 3650


def orders_from(entries: list[dict[str, Any]]) -> list[Order]:
    """The entries of the option requests; ValueError or RefusedError name the one that is unfit."""
    orders = []
    for entry in entries:
        name = check_common_name(entry["name"], "requests: name")
        try:
            allowed = Names.wanted(entry["dns"], entry["ip"], entry["spiffe_id"])
        except ValueError as error:
            raise ValueError(f"requests: '{name}': {error}") from error
        request = load_request(entry["request"], f"requests: '{name}': request")
        orders.append(Order(name, request, allowed, tuple(entry["usage"])))
    return orders


def plan_issue(orders: list[Order], validity_hours: int) -> Plan:
    """A certificate per order. Pure."""
    return Plan(
        Change(
            order.name,
            None,
            {"names": names_of(order.request).listed(), "validity_hours": validity_hours},
            "a certificate was requested",
        )
        for order in orders
    )


def sign(
    orders: list[Order],
    authority: Any,
    span: tuple[datetime.datetime, datetime.datetime],
    moment: datetime.datetime,
) -> tuple[dict[str, Any], bytes]:
    """Issue and verify; the module's `certificates` and the lines for the log.

    span: start and end of the certificates' validity.
    """
    issued, lines = {}, b""
    for order in orders:
        leaf = issue(order, authority, *span)
        problems = verify(
            CertPath(leaf, [authority.intermediate], authority.root),
            fingerprint(authority.root),
            names_of(order.request),
            order.usage,
            moment,
        )
        if problems:
            raise RefusedError(problems)
        issued[order.name] = {
            "certificate": to_pem(leaf),
            "chain": to_pem(authority.intermediate),
            "serial": f"{leaf.serial_number:x}",
            "not_after": timestamp(not_after(leaf)),
        }
        lines += record(order, leaf, authority.intermediate, moment)
    return issued, lines


def work(module: AnsibleModule) -> dict[str, Any]:
    """Read, plan, apply; every certificate is proved before it is recorded and returned."""
    directory, hours = Path(module.params["directory"]), module.params["validity_hours"]
    if not 1 <= hours <= _MAX_HOURS:
        raise ValueError(f"validity_hours: {hours}: expected 1 to {_MAX_HOURS}")
    orders = orders_from(module.params["requests"])
    found, moment = read_authorities(directory, module.params["passphrase"]), now()
    authority = found.active
    if authority is None:
        if orders:
            raise RefusedError(
                [("no_ca", f"directory: there is no CA in {directory}: run mtls_ca first")]
            )
        return {**Plan().result(), "certificates": {}}
    problems = order_problems(orders, authority, found.log, moment)
    if problems:
        raise RefusedError(problems)
    plan = plan_issue(orders, hours)
    certificates: dict[str, Any] = {}
    if orders:
        span = validity(authority, hours, moment)
        if span[1] < moment + datetime.timedelta(hours=hours):
            module.warn(
                f"validity_hours: {hours}: cut short, for the issuing CA ends "
                f"{timestamp(span[1])}: replace it before that (playbook rotate_ca)"
            )
        if not module.check_mode:
            certificates, lines = sign(orders, authority, span, moment)
            with Transaction() as transaction:
                record_lines(transaction, directory, lines)
    return {
        **plan.result(),
        "certificates": certificates,
        "root_certificate": to_pem(authority.root),
        "root_fingerprint": fingerprint(authority.root),
        "trusted_roots": found.trusted_roots(),
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "passphrase": {"type": "str", "required": True, "no_log": True},
            "requests": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "request": {"type": "str", "required": True},
                    "usage": {
                        "type": "list",
                        "elements": "str",
                        "choices": list(USAGES),
                        "default": list(USAGES),
                    },
                    **NAME_OPTIONS,
                },
            },
            "validity_hours": {"type": "int", "default": 720},
        },
        supports_check_mode=True,
    )
    finish(module, Path(module.params["directory"]), lambda: work(module))


if __name__ == "__main__":
    main()
