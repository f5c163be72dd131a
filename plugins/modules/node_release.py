#!/usr/bin/python
# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_release
short_description: Install, activate and remove releases of the node
version_added: 0.1.0
author:
  - Holdfast contributors (@holdfast)
description:
  - Installs a release from an archive of M(holdfast.chain.node_bundle) into a virtual environment
    of its own, and points C(current) at it. Needs Python on the host, and neither pip, nor the
    packages for virtual environments, nor a network.
  - Nothing of an archive is used unless a key that the host trusts signed its manifest and every
    file has the hash that stands there. The host needs no library for that. The first release pins
    its key on the host, in C(release.keys) below O(base); O(trusted_keys) says otherwise.
  - A release that is not what it claims to be or does not start is never activated, and nothing of
    it stays.
  - All changes of a task happen or none does.
  - Keeps the active release, the one that was active before, and the newest others.
options:
  release:
    description: The release's name, as M(holdfast.chain.node_bundle) returned it.
    type: str
    required: true
  state:
    description:
      - V(present) installs.
      - V(active) installs and makes it the one that C(current) points to.
      - V(absent) removes it; the active release cannot be removed.
    type: str
    choices: [present, active, absent]
    default: present
  src:
    description:
      - Path of the archive on the controller, with its signature beside it (C(.sig)). Both are
        copied to the host, and removed from it again, only if the release has to be installed.
    type: path
  archive:
    description: Path of the archive on the host, its signature beside it, instead of O(src).
    type: path
  sha256:
    description:
      - The archive's SHA-256. Without it, a release that is installed is taken as it is.
      - Needed to install one.
    type: str
  trusted_keys:
    description:
      - Public keys that releases may be signed with, as M(holdfast.chain.node_bundle) returned
        them. They take the place of those that are pinned on the host. Empty to leave those.
    type: list
    elements: str
    default: []
  public_key:
    description: The key to pin on a host that has none pinned yet, where O(trusted_keys) is empty.
    type: str
  python:
    description: The interpreter to install with. Its version must be the archive's.
    type: path
    default: /usr/bin/python3
  base:
    description: Folder that holds C(releases/) and C(current).
    type: path
    default: /opt/holdfast
  keep:
    description: How many releases to keep, at least 2.
    type: int
    default: 5
attributes:
  check_mode:
    support: full
    description: Reads what is installed and plans. The archive is not looked at.
  diff_mode:
    support: full
    description: Shows releases and the link, before and after.
  idempotent:
    support: full
    description: A release that is complete and from the same archive is kept.
  platform:
    support: full
    description: Linux.
    platforms: linux
"""

EXAMPLES = r"""
- name: Install a release and make it the active one
  holdfast.chain.node_release:
    release: 0.1.0-3f9c2a1b77de
    src: ~/.cache/holdfast/holdfast-node-0.1.0-3f9c2a1b77de-cp311-glibc2.34-x86_64.tar
    sha256: 5b0c4b3a7f3d6c8a2f6f0e1d9c8b7a695847362514f3e2d1c0b9a8f7e6d5c4b3
    public_key: 3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29
    state: active

- name: Take releases from this key alone from now on
  holdfast.chain.node_release:
    release: 0.1.0-3f9c2a1b77de
    trusted_keys: [8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c]

- name: Go back to the release before
  holdfast.chain.node_release:
    release: 0.1.0-91ab02cd34ef
    state: active
"""

RETURN = r"""
current:
  description: The active release afterwards, or null. In check mode, what it would be.
  returned: success
  type: str
  sample: 0.1.0-3f9c2a1b77de
previous:
  description: The release that was active before, or null.
  returned: success
  type: str
releases:
  description: The releases installed afterwards, sorted. In check mode, what is installed.
  returned: success
  type: list
  elements: str
trusted_keys:
  description: The public keys pinned on the host afterwards. In check mode, what they would be.
  returned: success
  type: list
  elements: str
command:
  description: Path of the active release's program.
  returned: success
  type: str
  sample: /opt/holdfast/current/bin/holdfast-node
changes:
  description: What was, or would be, changed and why.
  returned: success
  type: list
  elements: dict
"""

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.chain.plugins.module_utils import (
    bundle_format,
    bundle_seal,
    release,
)
from ansible_collections.holdfast.chain.plugins.module_utils.files import locked
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import TransactionError


def check_archive(module, wanted, keys):
    """Fail if there is no archive, not the one that is wanted, or none that is to be believed."""
    archive = Path(module.params["archive"] or "")
    if not module.params["archive"] or wanted.sha256 is None:
        module.fail_json(
            msg=f"release = {wanted.release}: it is not installed; give its archive (src) and its "
            "sha256",
            archive_needed=True,
        )
    if not archive.is_file():
        module.fail_json(
            msg=f"archive = {archive}: there is no such file; copy it to the host first"
        )
    actual = bundle_format.sha256_of(archive)
    if actual != wanted.sha256:
        module.fail_json(
            msg=f"sha256 = {wanted.sha256}: {archive} has {actual}; copy it again, or give the "
            "hash that node_bundle returned"
        )
    if not keys:
        module.fail_json(
            msg=f"release = {wanted.release}: the host has no key pinned to check its signature "
            "with; give the public_key that node_bundle returned, or trusted_keys"
        )
    try:
        bundle_format.unpack(archive, None, bundle_seal.read(archive), keys)
    except (bundle_format.BrokenBundleError, bundle_seal.SealError, OSError) as error:
        module.fail_json(msg=f"release = {wanted.release}: {error}")


def apply(module, state, wanted, planned):
    """Carry the plan out and prove it; returns the state afterwards, or fails the task."""
    archive, python = Path(module.params["archive"] or ""), module.params["python"]
    installer = release.Installer(archive, wanted, python, time.time(), wanted.keys(state))
    try:
        left_behind = release.apply(state, wanted, planned, installer)
    except (TransactionError, OSError) as error:
        module.fail_json(msg=str(error), **dict(planned.result(), changed=False))
    for name in left_behind:
        module.warn(f"could not remove {name}; the next run tries again")
    after = release.read_state(state.base)
    unproved = release.plan(after, wanted)
    if unproved and not left_behind:
        module.fail_json(msg="applied, but not as wanted afterwards", **unproved.result())
    return after


def converge(module, base, wanted):
    """Read, plan, apply and prove."""
    try:
        before = release.read_state(base)
        planned = release.plan(before, wanted)
    except release.ReleaseError as error:
        module.fail_json(msg=str(error))
    if release.installs(before, wanted, planned) and not module.check_mode:
        check_archive(module, wanted, wanted.keys(before))
    after = before
    if planned and not module.check_mode:
        after = apply(module, before, wanted, planned)
    module.exit_json(
        current=wanted.release if wanted.state == "active" else after.current,
        previous=before.current,
        releases=sorted(after.complete),
        trusted_keys=list(wanted.keys(before)) if wanted.state != "absent" else list(after.pinned),
        command=str(base / "current" / "bin" / bundle_format.PACKAGE),
        **planned.result(),
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "release": {"type": "str", "required": True},
            "state": {
                "type": "str",
                "default": "present",
                "choices": ["present", "active", "absent"],
            },
            "src": {"type": "path"},
            "archive": {"type": "path"},
            "sha256": {"type": "str"},
            "trusted_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "public_key": {"type": "str", "no_log": False},
            "python": {"type": "path", "default": "/usr/bin/python3"},
            "base": {"type": "path", "default": "/opt/holdfast"},
            "keep": {"type": "int", "default": 5},
        },
        mutually_exclusive=[("src", "archive")],
        supports_check_mode=True,
    )
    name, sha256, keep = (module.params[key] for key in ("release", "sha256", "keep"))
    if not release.RELEASE_NAME.fullmatch(name):
        module.fail_json(msg=f"release = {name}: expected letters, digits and . + _ -")
    if keep < 2:
        module.fail_json(
            msg=f"keep = {keep}: expected at least 2, so that there is one to go back to"
        )
    try:
        trusted = bundle_seal.public_keys(module.params["trusted_keys"], "trusted_keys")
        given = [module.params["public_key"]] if module.params["public_key"] else []
        first = bundle_seal.public_keys(given, "public_key")
    except ValueError as error:
        module.fail_json(msg=str(error))
    wanted = release.Wanted(name, module.params["state"], sha256 or None, keep, trusted, first)
    base = Path(module.params["base"])
    if module.check_mode:
        converge(module, base, wanted)
    try:
        with locked(base, _LOCK_SECONDS):
            converge(module, base, wanted)
    except TimeoutError as error:
        module.fail_json(msg=str(error))


_LOCK_SECONDS = 600  # as long as another run may take to install


if __name__ == "__main__":
    main()
