#!/usr/bin/python
# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_bundle
short_description: Gather a release of the node and all it depends on, once per platform
version_added: 0.1.0
author:
  - Holdfast contributors (@holdfast)
description:
  - Builds the node's wheel from source, downloads the wheels that its lock file names for each
    target, and packs them into one archive per target that M(holdfast.chain.node_release) installs
    on a host without any network.
  - Runs on the controller, which needs pip and a package index. The host needs neither.
  - Equal inputs give equal bytes. The release is named after the version and a hash of the inputs,
    the same for all targets. What was gathered once is not gathered again and needs no network.
  - The source folder is never written to.
options:
  source:
    description: Folder of the node's Python package (with C(pyproject.toml) and C(src)).
    type: path
    required: true
  lock:
    description: Hashed lock file of what the node depends on, for all platforms.
    type: path
    required: true
  tools:
    description: Hashed lock file of pip and the build backend.
    type: path
    required: true
  targets:
    description:
      - What to gather for. M(holdfast.chain.host_facts) returns a host's own. Targets that come to
        the same are gathered once.
    type: list
    elements: dict
    required: true
    suboptions:
      key:
        description: Ignored; so that a host's target can be given as it is.
        type: str
      python:
        description: CPython's version, such as V(3.11).
        type: str
        required: true
      libc:
        description: The C library.
        type: str
        required: true
        choices: [glibc, musl]
      libc_version:
        description: The C library's version.
        type: str
        required: true
      machine:
        description: The machine's name.
        type: str
        required: true
  destination:
    description: Folder for the archives; made if missing.
    type: path
    required: true
attributes:
  check_mode:
    support: full
    description: Says which archives are missing and names the release, without gathering.
  diff_mode:
    support: full
    description: Shows the archives to be gathered.
  idempotent:
    support: full
    description: An archive of these inputs that is intact is kept.
  platform:
    support: full
    description: The controller.
    platforms: posix
requirements:
  - pip (any that reads C(--require-hashes)) and packaging, on the controller
"""

EXAMPLES = r"""
- name: Gather the release for every platform of this run
  holdfast.chain.node_bundle:
    source: files/node
    lock: files/node/requirements.lock
    tools: files/node/tools.lock
    destination: ~/.cache/holdfast
    targets:
      - python: "3.11"
        libc: glibc
        libc_version: "2.36"
        machine: x86_64
  delegate_to: localhost
  run_once: true
  register: bundle
"""

RETURN = r"""
version:
  description: The node's version.
  returned: always
  type: str
  sample: 0.1.0
release:
  description: The release's name.
  returned: always
  type: str
  sample: 0.1.0-3f9c2a1b77de
bundles:
  description: For each target's key its C(archive) (path), and its C(sha256) (empty if it is not
    there, in check mode).
  returned: always
  type: dict
  sample:
    cp311-glibc2.34-x86_64:
      archive: ~/.cache/holdfast/holdfast-node-0.1.0-3f9c2a1b77de-cp311-glibc2.34-x86_64.tar
      sha256: 5b0c4b3a7f3d6c8a2f6f0e1d9c8b7a695847362514f3e2d1c0b9a8f7e6d5c4b3
changes:
  description: What was, or would be, gathered and why.
  returned: always
  type: list
  elements: dict
"""

import os
import sys
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.holdfast.chain.plugins.module_utils import bundle, bundle_format
from ansible_collections.holdfast.chain.plugins.module_utils.plan import Change, Plan
from ansible_collections.holdfast.chain.plugins.module_utils.platforms import parse_target
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import (
    Transaction,
    TransactionError,
)

TARGET = {
    "key": {"type": "str", "no_log": False},
    "python": {"type": "str", "required": True},
    "libc": {"type": "str", "required": True, "choices": ["glibc", "musl"]},
    "libc_version": {"type": "str", "required": True},
    "machine": {"type": "str", "required": True},
}


def read(paths):
    """SHA-256 by target of the archives that are there and are what was written."""
    found = {}
    for target, path in paths.items():
        try:
            noted = Path(str(path) + ".sha256").read_text().split()
            actual = bundle_format.sha256_of(path)
        except OSError:
            continue
        found[target] = actual if noted[:1] == [actual] else "broken"
    return found


def plan(paths, found):
    """A change for every archive that is missing or broken."""
    changes = []
    for target, path in paths.items():
        has = found.get(target)
        if has is None:
            changes.append(
                Change(
                    str(path),
                    None,
                    "a bundle for " + target.key,
                    "nothing was gathered from these inputs for this target yet",
                )
            )
        elif has == "broken":
            changes.append(
                Change(
                    str(path),
                    "other content",
                    "a bundle for " + target.key,
                    "it is not what was once gathered",
                )
            )
    return Plan(changes)


def apply(module, inputs, paths, planned):
    """Gather what the plan names; all archives of a call or none."""
    wanted = {change.target for change in planned}
    with tempfile.TemporaryDirectory(dir=module.tmpdir) as scratch, Transaction() as transaction:
        gatherer = bundle.Gatherer(inputs, sys.executable, Path(scratch))
        gatherer.prepare()
        for target, path in paths.items():
            if str(path) not in wanted:
                continue
            content = gatherer.archive(target)
            if not path.parent.is_dir():
                transaction.make_directory(path.parent)
            transaction.write_file(path, content)
            line = f"{bundle_format.sha256_of(path)}  {path.name}\n"
            transaction.write_file(str(path) + ".sha256", line.encode())


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "path", "required": True},
            "lock": {"type": "path", "required": True},
            "tools": {"type": "path", "required": True},
            "targets": {"type": "list", "elements": "dict", "required": True, "options": TARGET},
            "destination": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    options = module.params
    os.umask(0o022)  # wheels carry the modes of what they are built from
    try:
        inputs = bundle.read_inputs(
            Path(options["source"]), Path(options["lock"]), Path(options["tools"])
        )
        targets = sorted({parse_target(item) for item in options["targets"]}, key=lambda t: t.key)
    except (bundle.GatherError, ValueError) as error:
        module.fail_json(msg=str(error))
    release = inputs.release
    paths = {
        target: Path(options["destination"]) / f"{bundle_format.PACKAGE}-{release}-{target.key}.tar"
        for target in targets
    }
    found = read(paths)
    planned = plan(paths, found)
    if planned and not module.check_mode:
        try:
            apply(module, inputs, paths, planned)
        except (bundle.GatherError, TransactionError, OSError) as error:
            module.fail_json(msg=str(error))
        found = read(paths)
        left = plan(paths, found)
        if left:
            module.fail_json(msg="gathered, but not as wanted afterwards", **left.result())
    module.exit_json(
        version=inputs.version,
        release=release,
        bundles={
            target.key: {
                "archive": str(path),
                "sha256": "" if found.get(target) == "broken" else found.get(target, ""),
            }
            for target, path in paths.items()
        },
        **planned.result(),
    )


if __name__ == "__main__":
    main()
