# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of what a bundle holds, as an SPDX 2.3 document, from the metadata of its wheels.

Equal wheels give equal bytes: the time is that of everything in a bundle, the namespace is made of
the release's name.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import time
import zipfile
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser
from typing import Any, Mapping

try:
    from packaging.requirements import InvalidRequirement, Requirement
except ImportError:  # on the controller Ansible itself needs it; nothing here runs elsewhere
    InvalidRequirement = Requirement = None

from ansible_collections.holdfast.chain.plugins.module_utils import bundle_format

# What a classifier means where it means one licence, for wheels from before PEP 639.
_CLASSIFIED = {
    "Apache Software License": "Apache-2.0",
    "MIT License": "MIT",
    "ISC License (ISCL)": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
_APPROVED = "License :: OSI Approved :: "
_NOT_SAID = "NOASSERTION"
_DOCUMENT = "SPDXRef-DOCUMENT"
_BUNDLE = "SPDXRef-bundle"


class WheelError(Exception):
    """A wheel cannot be read; the message names it."""


@dataclass(frozen=True)
class Wheel:
    """A wheel in a bundle. file: its name there. metadata: its core metadata."""

    file: str
    sha256: str
    metadata: Message

    @property
    def name(self) -> str:
        """Normalized (PEP 503)."""
        return normalized(str(self.metadata["Name"]))

    @property
    def version(self) -> str:
        return str(self.metadata["Version"])

    @property
    def reference(self) -> str:
        return f"SPDXRef-package-{self.name}"

    def needs(self, environment: Mapping[str, str]) -> list[str]:
        """Names of what it requires in an environment, its optional extras left out."""
        names = set()
        for text in self.metadata.get_all("Requires-Dist") or ():
            try:
                requirement = Requirement(text)
            except InvalidRequirement as error:
                raise WheelError(f"{self.file}: Requires-Dist: {text}: {error}") from error
            if not requirement.marker or requirement.marker.evaluate({**environment, "extra": ""}):
                names.add(normalized(requirement.name))
        return sorted(names)


def normalized(name: str) -> str:
    """A project's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_wheel(file: str, content: bytes) -> Wheel:
    """A wheel's metadata. Raises WheelError."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = [
                name
                for name in archive.namelist()
                if name.count("/") == 1 and name.endswith(".dist-info/METADATA")
            ]
            metadata = BytesHeaderParser().parsebytes(archive.read(names[0]))
    except (zipfile.BadZipFile, IndexError, ValueError) as error:
        raise WheelError(f"{file} is no wheel: it has no readable METADATA") from error
    for header in ("Name", "Version"):
        if not metadata[header]:
            raise WheelError(f"{file} is no wheel: its METADATA has no {header}")
    return Wheel(file, hashlib.sha256(content).hexdigest(), metadata)


def licence(metadata: Message) -> tuple[str, str]:
    """The declared licence as an SPDX expression, and what was said where that is not one."""
    expression = metadata["License-Expression"]
    if expression:
        return str(expression), ""
    said = [
        str(line)[len(_APPROVED) :]
        for line in metadata.get_all("Classifier") or ()
        if str(line).startswith(_APPROVED)
    ]
    if len(said) == 1 and said[0] in _CLASSIFIED:
        return _CLASSIFIED[said[0]], ""
    # Several classifiers can mean "and" as well as "or": left to who reads them.
    text = str(metadata["License"] or "").strip().splitlines()[:1]
    return _NOT_SAID, "; ".join(["its metadata says", *said, *text])


def document(
    described: Mapping[str, str], files: Mapping[str, bytes], environment: Mapping[str, str]
) -> bytes:
    """The document's bytes.

    described: release and target of the bundle. files: its wheels by their names in it.
    environment: markers of the target (PEP 508). Raises WheelError.
    """
    wheels = sorted(
        (read_wheel(name, content) for name, content in files.items() if name.endswith(".whl")),
        key=lambda wheel: wheel.name,
    )
    name = "{}-{}-{}".format(bundle_format.PACKAGE, described["release"], described["target"])
    content = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": _DOCUMENT,
        "name": name,
        "documentNamespace": "https://spdx.org/spdxdocs/" + name + "-" + _digest(wheels),
        "creationInfo": {
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(bundle_format.EPOCH)),
            "creators": ["Tool: holdfast.chain.node_bundle"],
        },
        "packages": [_bundle(name, described), *(_package(wheel) for wheel in wheels)],
        "relationships": _relationships(wheels, environment),
    }
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def _digest(wheels: list[Wheel]) -> str:
    return hashlib.sha256("".join(wheel.sha256 for wheel in wheels).encode()).hexdigest()[:16]


def _bundle(name: str, described: Mapping[str, str]) -> dict[str, Any]:
    return {
        "SPDXID": _BUNDLE,
        "name": name,
        "versionInfo": described["release"],
        "downloadLocation": _NOT_SAID,
        "filesAnalyzed": False,
        "licenseConcluded": _NOT_SAID,
        "licenseDeclared": _NOT_SAID,
        "copyrightText": _NOT_SAID,
        "primaryPackagePurpose": "ARCHIVE",
    }


def _package(wheel: Wheel) -> dict[str, Any]:
    declared, comment = licence(wheel.metadata)
    entry = {
        "SPDXID": wheel.reference,
        "name": wheel.name,
        "versionInfo": wheel.version,
        "packageFileName": wheel.file,
        "downloadLocation": _NOT_SAID,
        "filesAnalyzed": False,
        "checksums": [{"algorithm": "SHA256", "checksumValue": wheel.sha256}],
        "licenseConcluded": _NOT_SAID,
        "licenseDeclared": declared,
        "copyrightText": _NOT_SAID,
        "primaryPackagePurpose": "LIBRARY",
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": f"pkg:pypi/{wheel.name}@{wheel.version}",
            }
        ],
    }
    if comment:
        entry["licenseComments"] = comment
    if wheel.name == bundle_format.PACKAGE:
        entry["primaryPackagePurpose"] = "APPLICATION"
        # No index has it: it is built from the collection's own source.
        del entry["externalRefs"]
    return entry


def _relationships(wheels: list[Wheel], environment: Mapping[str, str]) -> list[dict[str, str]]:
    there = {wheel.name: wheel.reference for wheel in wheels}
    links = [(_DOCUMENT, "DESCRIBES", _BUNDLE)]
    links += [(_BUNDLE, "CONTAINS", wheel.reference) for wheel in wheels]
    for wheel in wheels:
        if wheel.file.startswith(bundle_format.INSTALLER):
            links.append((wheel.reference, "BUILD_TOOL_OF", there[bundle_format.PACKAGE]))
            continue
        for name in wheel.needs(environment):
            if name not in there:
                raise WheelError(
                    f"{wheel.file} requires {name}, which the lock file does not have for "
                    "this target; make the lock file again"
                )
            links.append((wheel.reference, "DEPENDS_ON", there[name]))
    return [
        {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
        for one, kind, other in links
    ]
