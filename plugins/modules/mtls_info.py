#!/usr/bin/python
# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mtls_info
short_description: Identity on disk, what a listener really serves, and whether they agree
version_added: 0.2.0
description:
  - Reads the identity of a host and its revocation lists, and makes a TLS handshake with a listener
    to see which certificate it serves. Nothing is sent after the handshake.
  - After a renewal this is the proof that the service has taken the new certificate.
  - What is wrong on disk or with the listener is in the result and is no failure, except that
    O(wait) was given and ran out.
  - It never changes anything.
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: There is nothing to show.
  platform:
    platforms: posix
    support: full
    description: Operating systems the module works on.
options:
  directory:
    description:
      - Directory of the identity, as M(holdfast.chain.mtls_certificate) knows it.
      - At least one of O(directory) and O(port) must be given.
    type: path
  host:
    description: Name or address the listener is on.
    type: str
    default: 127.0.0.1
  port:
    description: Port of the listener. Without it, none is asked.
    type: int
  also:
    description:
      - Further ports of the same service, which are to serve the same.
      - RV(served) is then of the first port that does not serve what is on disk, or else of
        O(port).
    type: list
    elements: int
    default: []
  server_name:
    description:
      - Name to ask the listener for (SNI). Default is O(host), unless that is an address. Empty for
        none.
    type: str
  client:
    description:
      - Whether to present the identity in O(directory) as the client's certificate. Who runs the
        module must be able to read its key.
    type: bool
    default: true
  timeout:
    description: Seconds for connecting, and for the handshake.
    type: float
    default: 5
  wait:
    description:
      - Seconds to wait until the listener serves what is on disk, as after a reload. It fails if it
        does not in that time.
      - Needs O(directory) and O(port).
    type: float
    default: 0
requirements:
  - cryptography >= 3.4
seealso:
  - module: holdfast.chain.mtls_certificate
  - module: holdfast.chain.mtls_crl
author:
  - Holdfast contributors (@holdfast)
"""

EXAMPLES = r"""
- name: Prove that the node serves its new certificate
  holdfast.chain.mtls_info:
    directory: /etc/holdfast/v1/tls
    port: 30303
    wait: 30

- name: Look at somebody else's listener
  holdfast.chain.mtls_info:
    host: v2.chain.example.org
    port: 30303
  delegate_to: localhost
  register: seen

- name: How long that is good for
  ansible.builtin.debug:
    msg: "{{ seen.served.days_left }} days"
"""

RETURN = r"""
on_disk:
  description: The identity in use; null without O(directory).
  returned: success
  type: dict
  contains:
    fault:
      description: Why there is no usable identity; null if there is one. Then the rest is there.
      type: str
    days_left:
      description: Days until it expires, negative afterwards.
      type: float
    sha256:
      description: SHA-256 of the certificate.
      type: str
    serial:
      description: Serial number, hex.
      type: str
    not_before:
      description: Start of validity, RFC 3339.
      type: str
    not_after:
      description: End of validity, RFC 3339.
      type: str
    dns:
      description: DNS names.
      type: list
      elements: str
    ip:
      description: Addresses.
      type: list
      elements: str
    spiffe_id:
      description: SPIFFE id; null if it has none.
      type: str
    key_type:
      description: Kind of the key.
      type: str
    public_key_sha256:
      description: SHA-256 of the public key.
      type: str
    root_sha256:
      description: SHA-256 of each trusted root.
      type: list
      elements: str
    issuer_root_sha256:
      description: SHA-256 of the root behind the certificate; null if none of the trusted ones is.
      type: str
    revoked:
      description: Whether the revocation lists on the host name it.
      type: bool
    path:
      description: The generation, the directory with the files.
      type: str
crl:
  description: The revocation lists on the host; null without O(directory).
  returned: success
  type: dict
  contains:
    file:
      description: The file with the lists.
      type: str
    fault:
      description: Why it cannot be used; null if it can, or if there is none.
      type: str
    crls:
      description: One entry per list, with the fields that M(holdfast.chain.mtls_crl) returns.
      type: list
      elements: dict
    pem:
      description: The lists themselves, in PEM; empty if there are none.
      type: str
served:
  description: What the listener serves; null without O(port).
  returned: success
  type: dict
  contains:
    fault:
      description: Why there was no handshake, or why it is not trusted; null if all is well.
      type: str
    trusted:
      description:
        - Whether the certificate leads to a root in C(current/ca.pem) and is valid now.
        - Null where there was nothing to judge by, or no connection.
      type: bool
    protocol:
      description: Such as V(TLSv1.3). This and the following only after a handshake.
      type: str
    sha256:
      description: SHA-256 of the certificate.
      type: str
    serial:
      description: Serial number, hex.
      type: str
    issuer:
      description: Name of who issued it.
      type: str
    not_before:
      description: Start of validity, RFC 3339.
      type: str
    not_after:
      description: End of validity, RFC 3339.
      type: str
    days_left:
      description: Days until it expires, negative afterwards.
      type: float
    dns:
      description: DNS names.
      type: list
      elements: str
    ip:
      description: Addresses.
      type: list
      elements: str
    spiffe_id:
      description: SPIFFE id; null if it has none.
      type: str
same:
  description:
    - Whether the certificate served, on every port, is the one on disk; null if one is not known.
  returned: success
  type: bool
"""

import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.holdfast.chain.plugins.module_utils.identity import (
    CA,
    CHAIN,
    KEY,
    Identity,
    read_identity,
)
from ansible_collections.holdfast.chain.plugins.module_utils.identity_crl import (
    Published,
    read_published,
)
from ansible_collections.holdfast.chain.plugins.module_utils.identity_plan import (
    revocation_reasons,
)
from ansible_collections.holdfast.chain.plugins.module_utils.identity_probe import (
    Listener,
    days_left,
    probe,
)
from ansible_collections.holdfast.chain.plugins.module_utils.x509 import (
    CRYPTOGRAPHY_ERROR,
    RefusedError,
    now,
)

_PAUSE = 0.25  # seconds between two looks while waiting


def disk_facts(identity: Identity, published: Published) -> dict[str, Any]:
    """The identity in use, or why there is none."""
    current = identity.current
    if current is None:
        return {"fault": identity.fault or f"{identity.directory}: no certificate is installed"}
    return {
        **current.facts(),
        "fault": None,
        "days_left": days_left(current.leaf, now()),
        "revoked": bool(revocation_reasons(current, published.crls)),
    }


def listener_from(params: dict[str, Any], port: int, identity: Identity | None) -> Listener:
    """Where to look, judged with the roots of the identity and presenting it."""
    current = identity.current if identity else None
    chain_and_key = None
    if current is not None and params["client"]:
        chain_and_key = (current.path / CHAIN, current.path / KEY)
    return Listener(
        params["host"],
        port,
        params["server_name"],
        current.path / CA if current else None,
        chain_and_key,
        params["timeout"],
    )


def look(params: dict[str, Any]) -> dict[str, Any]:
    """Both sides once, and whether they agree; with several ports, the first that does not."""
    identity = on_disk = crl = served = same = None
    if params["directory"] is not None:
        directory = Path(params["directory"])
        identity, published = read_identity(directory), read_published(directory)
        on_disk = disk_facts(identity, published)
        crl = {**published.facts(now()), "pem": published.pem}
    ports = [] if params["port"] is None else [params["port"], *params["also"]]
    seen = [probe(listener_from(params, port, identity)).facts(now()) for port in ports]
    if on_disk and "sha256" in on_disk:
        wrong = [one for one in seen if one.get("sha256") != on_disk["sha256"]]
        served = next(iter([*wrong, *seen]), None)
        if served and "sha256" in served:
            same = not wrong
    elif seen:
        served = seen[0]
    return {"changed": False, "on_disk": on_disk, "crl": crl, "served": served, "same": same}


def wait_for_it(params: dict[str, Any]) -> dict[str, Any]:
    """Look until the listener serves what is on disk; RefusedError when the time is over."""
    deadline = time.monotonic() + params["wait"]
    while True:
        found = look(params)
        if found["same"] or not params["wait"]:
            return found
        if time.monotonic() >= deadline:
            served, on_disk = found["served"], found["on_disk"]
            ports = ", ".join(map(str, [params["port"], *params["also"]]))
            text = (
                f"{params['host']} port {ports}: after {params['wait']:g} s it does not "
                f"serve what is on disk: on disk is {on_disk.get('serial', on_disk['fault'])}, "
                f"served is {served.get('serial', served['fault'])}: either the service was not "
                "reloaded, or it refused what is on disk: its log says why"
            )
            raise RefusedError([("not_served", text)])
        time.sleep(_PAUSE)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path"},
            "host": {"type": "str", "default": "127.0.0.1"},
            "port": {"type": "int"},
            "also": {"type": "list", "elements": "int", "default": []},
            "server_name": {"type": "str"},
            "client": {"type": "bool", "default": True},
            "timeout": {"type": "float", "default": 5},
            "wait": {"type": "float", "default": 0},
        },
        required_one_of=[("directory", "port")],
        supports_check_mode=True,
    )
    if CRYPTOGRAPHY_ERROR:
        module.fail_json(
            msg=missing_required_lib("cryptography >= 3.4"), exception=CRYPTOGRAPHY_ERROR
        )
    params = module.params
    if params["also"] and params["port"] is None:
        module.fail_json(msg=f"also: {params['also']}: expected port as well, the first of them")
    if params["wait"] and None in (params["directory"], params["port"]):
        module.fail_json(msg="wait: needs directory and port: there is nothing to compare")
    try:
        result = wait_for_it(params)
    except RefusedError as error:
        module.fail_json(**error.result())
    except (OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
