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
  - Each archive has a list of what is in it (SPDX 2.3, C(sbom.spdx.json)) and a manifest with the
    hash of every file, which is signed with Ed25519; the signature lies beside the archive.
  - Or takes what was gathered elsewhere from a folder (O(carried)), and needs no index then.
  - Equal inputs give equal bytes. The release is named after the version and a hash of the inputs,
    the same for all targets. What was gathered once is not gathered again and needs no network.
  - The source folder is never written to.
options:
  source:
    description: Folder of the node's Python package (with C(pyproject.toml) and C(src)).
    type: path
  lock:
    description: Hashed lock file of what the node depends on, for all platforms.
    type: path
  tools:
    description: Hashed lock file of pip and the build backend.
    type: path
  signing_key:
    description:
      - File of the private key that signs, PKCS#8 PEM, mode 0600. If there is none it is made,
        once; it is never replaced. Keep a copy where the copies of your other keys are.
      - Another key here signs what was gathered again, and changes nothing else. Runs at the same
        time with keys of their own need folders (O(destination)) of their own.
    type: path
  carried:
    description:
      - Folder of archives and signatures that were gathered elsewhere, instead of O(source). Every
        byte of those for O(targets) is checked; nothing is written.
    type: path
  trusted_keys:
    description:
      - Public keys that what is carried may be signed with.
    type: list
    elements: str
    default: []
  targets:
    description:
      - What to gather for. M(holdfast.chain.host_facts) returns a host's own. Targets that come to
        the same are gathered once. Either a C(key) or the four others.
    type: list
    elements: dict
    required: true
    suboptions:
      key:
        description: The target's name, such as V(cp311-glibc2.34-x86_64).
        type: str
      python:
        description: CPython's version, such as V(3.11).
        type: str
      libc:
        description: The C library.
        type: str
        choices: [glibc, musl]
      libc_version:
        description: The C library's version.
        type: str
      machine:
        description: The machine's name.
        type: str
  destination:
    description: Folder for the archives; made if missing.
    type: path
attributes:
  check_mode:
    support: full
    description: Says what would be gathered and signed and names the release.
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
  - pip (any that reads C(--require-hashes)), packaging and cryptography, on the controller; none
    of them for O(carried)
"""

EXAMPLES = r"""
- name: Gather the release for every platform of this run
  holdfast.chain.node_bundle:
    source: files/node
    lock: files/node/requirements.lock
    tools: files/node/tools.lock
    destination: ~/.cache/holdfast
    signing_key: ~/.holdfast/release.key
    targets:
      - python: "3.11"
        libc: glibc
        libc_version: "2.36"
        machine: x86_64
  delegate_to: localhost
  run_once: true
  register: bundle

- name: Take what came over an air gap
  holdfast.chain.node_bundle:
    carried: /srv/holdfast
    trusted_keys: [3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29]
    targets:
      - key: cp311-glibc2.34-x86_64
  delegate_to: localhost
  run_once: true
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
public_key:
  description: The key the bundles are signed with, as hexadecimal digits. Empty if it is still to
    be made, in check mode.
  returned: always
  type: str
  sample: 3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29
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
import re
import sys
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.holdfast.chain.plugins.module_utils import (
    bundle,
    bundle_carried,
    bundle_format,
    bundle_key,
    bundle_seal,
)
from ansible_collections.holdfast.chain.plugins.module_utils.files import locked
from ansible_collections.holdfast.chain.plugins.module_utils.plan import Change, Plan
from ansible_collections.holdfast.chain.plugins.module_utils.platforms import parse_target
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import (
    Transaction,
    TransactionError,
)

PARTS = ("python", "libc", "libc_version", "machine")
TARGET = {
    "key": {"type": "str", "no_log": False},
    "python": {"type": "str"},
    "libc": {"type": "str", "choices": ["glibc", "musl"]},
    "libc_version": {"type": "str"},
    "machine": {"type": "str"},
}
GATHERING = ("source", "lock", "tools", "destination", "signing_key")
_LOCK_SECONDS = 1800  # as long as another run may take to gather
_FAULTS = (
    bundle.GatherError,
    bundle_carried.CarriedError,
    bundle_format.BrokenBundleError,
    bundle_key.KeyFileError,
    bundle_seal.SealError,
    TransactionError,
    TimeoutError,
    ValueError,
    OSError,
)


def parse_targets(items):
    """The targets that options name, each once. Raises ValueError."""
    targets = set()
    for item in items:
        options = item
        if item["key"] and not any(item[part] for part in PARTS):
            named = re.fullmatch(r"cp(\d)(\d+)-([a-z]+)(\d+\.\d+)-(\w+)", item["key"])
            if not named:
                raise ValueError(
                    "targets: key = {}: expected a name such as cp311-glibc2.34-x86_64 or "
                    "cp312-musl1.2-aarch64".format(item["key"])
                )
            major, minor, *others = named.groups()
            options = dict(zip(PARTS, [major + "." + minor, *others]))
        missing = [part for part in PARTS if not options[part]]
        if missing:
            raise ValueError("targets: expected a key, or all of {}".format(", ".join(PARTS)))
        targets.add(parse_target(options))
    return sorted(targets, key=lambda target: target.key)


def read(paths):
    """By target the SHA-256 and the seal of the archives that are there; seal: None if unusable.

    An archive that is not what was once gathered has "broken" for its hash.
    """
    found = {}
    for target, path in paths.items():
        try:
            noted = Path(str(path) + ".sha256").read_text().split()
            actual = bundle_format.sha256_of(path)
        except OSError:
            continue
        try:
            seal = bundle_seal.read(path)
        except bundle_seal.SealError:
            seal = None
        found[target] = (actual if noted[:1] == [actual] else "broken", seal)
    return found


def plan(signing_key, public_key, paths, found):
    """A change for the key if there is none, every archive and every signature that is missing."""
    changes = []
    if not public_key:
        reason = "releases are signed, and there is no key yet"
        changes.append(Change(signing_key, None, "a new private key", reason))
    for target, path in paths.items():
        digest, seal = found.get(target, (None, None))
        wanted = "a bundle for " + target.key
        if digest is None:
            reason = "nothing was gathered from these inputs for this target yet"
            changes.append(Change(str(path), None, wanted, reason))
        elif digest == "broken":
            reason = "it is not what was once gathered"
            changes.append(Change(str(path), "other content", wanted, reason))
        elif not public_key or not _is_signed(path, seal, public_key):
            before = seal.public_key if seal else None
            reason = "it has no signature by this key"
            after = public_key or "the new key"
            changes.append(Change(str(path) + bundle_seal.SUFFIX, before, after, reason))
    return Plan(changes)


def _is_signed(path, seal, public_key):
    if seal is None:
        return False
    try:
        manifest = bundle_format.manifest_bytes(path)
        bundle_seal.check(manifest, seal, [public_key], str(path))
    except bundle_seal.SealError:
        return False
    return True


def apply(module, inputs, paths, planned):
    """Make the key, gather and sign what the plan names; all of a call or nothing."""
    wanted = {change.target for change in planned}
    key = Path(module.params["signing_key"])
    with tempfile.TemporaryDirectory(dir=module.tmpdir) as scratch, Transaction() as transaction:
        if str(key) in wanted:
            transaction.write_file(key, bundle_key.new_key(), mode=0o600)
        signer = bundle_key.load(key)
        gatherer = None
        for target, path in paths.items():
            if str(path) in wanted:
                if gatherer is None:
                    gatherer = bundle.Gatherer(inputs, sys.executable, Path(scratch))
                    gatherer.prepare()
                content = gatherer.archive(target)
                if not path.parent.is_dir():
                    transaction.make_directory(path.parent)
                transaction.write_file(path, content)
                line = f"{bundle_format.sha256_of(path)}  {path.name}\n"
                transaction.write_file(str(path) + ".sha256", line.encode())
            elif str(path) + bundle_seal.SUFFIX not in wanted:
                continue
            seal = signer.seal(bundle_format.manifest_bytes(path))
            transaction.write_file(str(path) + bundle_seal.SUFFIX, seal.to_bytes())


def gather(module, targets):
    """Read, plan, apply and prove."""
    options = module.params
    inputs = bundle.read_inputs(
        Path(options["source"]), Path(options["lock"]), Path(options["tools"])
    )
    name = f"{bundle_format.PACKAGE}-{inputs.release}"
    paths = {
        target: Path(options["destination"]) / f"{name}-{target.key}.tar" for target in targets
    }
    key = Path(options["signing_key"])
    signer, found = bundle_key.load(key), read(paths)
    planned = plan(str(key), signer.public_key if signer else "", paths, found)
    if planned and not module.check_mode:
        apply(module, inputs, paths, planned)
        signer, found = bundle_key.load(key), read(paths)
        left = plan(str(key), signer.public_key, paths, found)
        if left:
            module.fail_json(msg="gathered, but not as wanted afterwards", **left.result())
    hashes = {target: found.get(target, ("",))[0] for target in paths}
    module.exit_json(
        version=inputs.version,
        release=inputs.release,
        public_key=signer.public_key if signer else "",
        bundles={
            target.key: {
                "archive": str(path),
                "sha256": "" if hashes[target] == "broken" else hashes[target],
            }
            for target, path in paths.items()
        },
        **planned.result(),
    )


def take(module, targets):
    """Check what was carried here."""
    if not module.params["trusted_keys"]:
        module.fail_json(
            msg="trusted_keys = []: expected the public key that was printed where the bundles in "
            "{} were made; give it in node_bundle_public_keys".format(module.params["carried"])
        )
    trusted = bundle_seal.public_keys(module.params["trusted_keys"], "trusted_keys")
    keys = [target.key for target in targets]
    found = bundle_carried.find(Path(module.params["carried"]), keys, trusted)
    module.exit_json(
        version=found.version,
        release=found.release,
        public_key=found.public_key,
        bundles={
            key: {"archive": str(path), "sha256": bundle_format.sha256_of(path)}
            for key, path in found.archives.items()
        },
        **Plan().result(),
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "path"},
            "lock": {"type": "path"},
            "tools": {"type": "path"},
            "signing_key": {"type": "path", "no_log": False},
            "carried": {"type": "path"},
            "trusted_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "targets": {"type": "list", "elements": "dict", "required": True, "options": TARGET},
            "destination": {"type": "path"},
        },
        mutually_exclusive=[("source", "carried")],
        required_one_of=[("source", "carried")],
        required_by={"source": [name for name in GATHERING if name != "source"]},
        supports_check_mode=True,
    )
    os.umask(0o022)  # wheels carry the modes of what they are built from
    try:
        targets = parse_targets(module.params["targets"])
        if module.params["carried"]:
            take(module, targets)
        if bundle_key.CRYPTOGRAPHY_ERROR:
            module.fail_json(
                msg=missing_required_lib("cryptography", reason="to sign releases"),
                exception=bundle_key.CRYPTOGRAPHY_ERROR,
            )
        if module.check_mode:
            gather(module, targets)
        # The key is made once, however many runs start at the same time: they meet at its folder.
        folder = Path(module.params["signing_key"]).parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(folder, _LOCK_SECONDS):
            gather(module, targets)
    except _FAULTS as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
