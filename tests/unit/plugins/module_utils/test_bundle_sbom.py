# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of what a bundle holds: complete, the same each time, and valid SPDX."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils import bundle_sbom
from ansible_collections.holdfast.chain.plugins.module_utils.platforms import parse_target
from bundles import wheel

ABOUT = {"release": "1.0-abc", "target": "cp311-glibc2.34-x86_64"}
HOST = {"python": "3.11", "libc": "glibc", "libc_version": "2.36", "machine": "x86_64"}
MARKERS = parse_target(HOST).markers()
NODE = "Requires-Dist: Typing_Extensions>=4\nRequires-Dist: tomli; python_version < '3.11'\n"
FILES = {
    "wheels/holdfast_node-1.0-py3-none-any.whl": wheel(
        "holdfast-node", "1.0", NODE + "License-Expression: Apache-2.0\n"
    ),
    "wheels/typing_extensions-4.0-py3-none-any.whl": wheel(
        "typing_extensions", "4.0", "License-Expression: PSF-2.0 OR MIT\n"
    ),
    "installer/pip-26.0-py3-none-any.whl": wheel(
        "pip", "26.0", "Classifier: License :: OSI Approved :: MIT License\n"
    ),
    "requirements.txt": b"",
}


def document(files=FILES) -> dict:
    return json.loads(bundle_sbom.document(ABOUT, files, MARKERS))


def test_an_independent_validator_finds_it_valid(tmp_path):
    path = tmp_path / "sbom.spdx.json"
    path.write_bytes(bundle_sbom.document(ABOUT, FILES, MARKERS))
    # The validator's own libraries warn about each other; that is not what is tested.
    command = [sys.executable, "-W", "ignore", "-m", "spdx_tools.spdx.clitools.pyspdxtools"]
    done = subprocess.run(
        [*command, "--version", "SPDX-2.3", "-i", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "not valid" in done.stdout + done.stderr) == (0, False), done.stderr
    broken = json.loads(path.read_text())
    broken["relationships"][0]["relatedSpdxElement"] = "SPDXRef-nothing"
    path.write_text(json.dumps(broken))
    done = subprocess.run([*command, "-i", str(path)], capture_output=True, check=False)
    assert done.returncode == 1, "the validator must be able to fail"


def test_packages_have_version_hash_and_licence():
    found = {package["name"]: package for package in document()["packages"]}
    assert found.keys() == {"holdfast-node", "typing-extensions", "pip"} | {
        "holdfast-node-1.0-abc-cp311-glibc2.34-x86_64"
    }
    for file, content in FILES.items():
        if not file.endswith(".whl"):
            continue
        (package,) = (one for one in found.values() if one.get("packageFileName") == file)
        assert package["checksums"] == [
            {"algorithm": "SHA256", "checksumValue": hashlib.sha256(content).hexdigest()}
        ]
    licences = {name: package["licenseDeclared"] for name, package in found.items()}
    assert licences["holdfast-node"] == "Apache-2.0"
    assert licences["typing-extensions"] == "PSF-2.0 OR MIT"
    assert licences["pip"] == "MIT"


def test_relationships_are_those_of_the_target():
    links = {
        (link["spdxElementId"], link["relationshipType"], link["relatedSpdxElement"])
        for link in document()["relationships"]
    }
    node, other = "SPDXRef-package-holdfast-node", "SPDXRef-package-typing-extensions"
    assert ("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-bundle") in links
    assert {link for link in links if link[1] == "DEPENDS_ON"} == {(node, "DEPENDS_ON", other)}
    assert len([link for link in links if link[1] == "CONTAINS"]) == 3


def test_the_same_wheels_give_the_same_bytes_and_others_another_namespace():
    backwards = dict(reversed(list(FILES.items())))
    assert bundle_sbom.document(ABOUT, FILES, MARKERS) == bundle_sbom.document(
        ABOUT, backwards, MARKERS
    )
    more = {**FILES, "wheels/more-1-py3-none-any.whl": wheel("more", "1")}
    assert document()["documentNamespace"] != document(more)["documentNamespace"]


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ("", "its metadata says"),
        ("License: BSD, see LICENSE\n", "its metadata says; BSD, see LICENSE"),
        ("Classifier: License :: OSI Approved :: BSD License\n", "its metadata says; BSD License"),
        (
            "Classifier: License :: OSI Approved :: MIT License\n"
            "Classifier: License :: OSI Approved :: Apache Software License\n",
            "its metadata says; MIT License; Apache Software License",
        ),
    ],
)
def test_a_licence_that_is_not_clear_is_not_made_up(headers, said):
    files = {**FILES, "wheels/more-1-py3-none-any.whl": wheel("more", "1", headers)}
    (package,) = (one for one in document(files)["packages"] if one["name"] == "more")
    assert package["licenseDeclared"] == "NOASSERTION"
    assert package["licenseComments"] == said


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("wheels/x.whl", b"no zip", "wheels/x.whl is no wheel"),
        ("wheels/x.whl", wheel("x", ""), "METADATA has no Version"),
        ("wheels/x.whl", wheel("x", "1", "Requires-Dist: ?\n"), "Requires-Dist: ?"),
        ("wheels/x.whl", wheel("x", "1", "Requires-Dist: y\n"), "requires y, which the lock file"),
    ],
)
def test_what_cannot_be_listed_is_named(name, content, said):
    with pytest.raises(bundle_sbom.WheelError) as caught:
        document({**FILES, name: content})
    assert said in str(caught.value)
