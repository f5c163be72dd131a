# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles that were gathered elsewhere and carried here: found, and believed only if signed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Mapping, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils import bundle_format, bundle_seal

_NAME = re.compile(rf"{bundle_format.PACKAGE}-(.+)-(cp\d+-[a-z]+\d+\.\d+-\w+)\.tar")


class CarriedError(Exception):
    """The folder has not what is needed; the message names the file and the way out."""


@dataclass(frozen=True)
class Carried:
    """One release for some targets. archives: the verified archive by its target's key."""

    release: str
    version: str
    public_key: str
    archives: Mapping[str, Path]


def find(folder: Path, targets: Sequence[str], trusted: Sequence[str]) -> Carried:
    """The archives for these targets' keys, or for all there are, every byte of them checked.

    Raises CarriedError, BrokenBundleError, SealError, OSError.
    """
    archives = _choose(folder, targets)
    found: dict[str, Carried] = {}
    for key, path in archives.items():
        seal = bundle_seal.read(path)
        manifest = bundle_format.unpack(path, None, seal, trusted)
        if manifest["target"] != key:
            raise CarriedError(
                "{}: it is made for {}; give it its own name again, or copy it again".format(
                    path, manifest["target"]
                )
            )
        found[key] = Carried(manifest["release"], manifest["version"], seal.public_key, archives)
    first = next(iter(found.values()))
    for key, one in found.items():
        for what, differs in (
            ("release", one.release != first.release),
            ("key", one.public_key != first.public_key),
        ):
            if differs:
                raise CarriedError(
                    f"{archives[key]}: it is of another {what} than "
                    f"{next(iter(archives.values())).name}; carry bundles that were made in one "
                    "go, so that every host gets the same"
                )
    return first


def _choose(folder: Path, targets: Sequence[str]) -> dict[str, Path]:
    if not folder.is_dir():
        raise CarriedError(f"carried = {folder}: there is no such folder")
    there: dict[str, list[Path]] = {}
    for path in sorted(folder.glob(bundle_format.PACKAGE + "-*.tar")):
        named = _NAME.fullmatch(path.name)
        if named:
            there.setdefault(named.group(2), []).append(path)
    missing = sorted(set(targets) - set(there))
    if missing or not there:
        raise CarriedError(
            "carried = {}: it has no bundle for {}, only for {}; make them with "
            "'make bundle PLATFORMS=\"{}\"' and add them".format(
                folder,
                ", ".join(missing) or "any platform",
                ", ".join(sorted(there)) or "none",
                " ".join(sorted({*there, *missing})),
            )
        )
    wanted = sorted(set(targets) or there)
    for key in wanted:
        if len(there[key]) > 1:
            raise CarriedError(
                "carried = {}: several releases for {}: {}; leave the one to install".format(
                    folder, key, ", ".join(path.name for path in there[key])
                )
            )
    return {key: there[key][0] for key in wanted}
