# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's container image from a signed bundle: ``python3 -m lab.node_image [--archive FILE]``.

The base is an image (--base), a root file system in HOLDFAST_IMAGES, or a registry's Alpine. The
release in it is that of `make bundle`, verified like on any host.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import images, machine
from .machine import found, install
from .shell import (
    COLLECTIONS,
    ROOT,
    STATE,
    LabError,
    capture,
    given_back,
    say,
    step,
    succeeds,
)
from .tools import digest

CONTAINERFILE = ROOT / "files" / "node" / "Containerfile"
PLATFORM = "alpine-3.19"
REGISTRY_BASE = "docker.io/library/alpine:3.19"
NAME = "localhost/holdfast-node"
SYSTEM = "localhost/holdfast-node-system"
# What the bundle has to fit, asked in the base itself: as module_utils/host.py asks a host.
ASK = (
    "import json, sys; sys.path.insert(0, '/asked'); "
    "from ansible_collections.holdfast.chain.plugins.module_utils import host; "
    "print(json.dumps(host.describe(sys.executable, [])))"
)


@dataclass(frozen=True)
class Built:
    """name: of the image. release: what is in it."""

    name: str
    release: str


def base(context: Path) -> str:
    """The name of the base image; made from HOLDFAST_IMAGES where that has one."""
    folder = os.environ.get("HOLDFAST_IMAGES")
    layers = images.layers_in(Path(folder), PLATFORM) if folder else []
    if not layers:
        registry = os.environ.get("HOLDFAST_REGISTRY")
        return f"{registry.rstrip('/')}/alpine:3.19" if registry else REGISTRY_BASE
    content = digest(*(layer.read_bytes() for layer in layers))[:12]
    name = f"localhost/holdfast-base:{PLATFORM}-{content}"
    if succeeds(["podman", "image", "exists", name]):
        return name
    for layer in layers:
        shutil.copy(layer, context / layer.name)
    lines = ["FROM scratch", *(f"ADD {layer.name} /" for layer in layers)]
    (context / "Containerfile").write_text("\n".join(lines) + "\n")
    with step(f"{PLATFORM} from HOLDFAST_IMAGES"):
        capture(["podman", "build", "-q", "--timestamp", "0", "-t", name, str(context)])
    return name


def static_init(folder: Path, image: str) -> None:
    """Put Debian's static tini into the context where the base has none and no repository."""
    reaches = "command -v tini || apk add --no-cache --simulate tini || apt-get -qs install tini"
    if succeeds(["podman", "run", "--rm", image, "sh", "-c", reaches]):
        return
    if not found(["apt-get"]):
        raise LabError(
            f"base = {image}: it has no tini, and reaches no repository to install it from; "
            "give a base that has (--base)"
        )
    with step("tini from this machine's distribution"), tempfile.TemporaryDirectory() as place:
        install([] if found(["dpkg-deb"]) else ["dpkg"])
        # apt's own sandbox user cannot write to a private folder
        download = ["sh", "-c", 'cd "$1" && apt-get -q -o APT::Sandbox::User=root download tini']
        capture([*download, "-", place])
        (package,) = Path(place).glob("tini_*.deb")
        capture(["dpkg-deb", "-x", str(package), f"{place}/root"])
        shutil.copy(f"{place}/root/usr/bin/tini-static", folder / "tini")


def target_of(image: str) -> str:
    """The key of the bundle that fits an image with Python."""
    shared = f"{ROOT}:/asked/ansible_collections/holdfast/chain:ro"
    answer = capture(
        ["podman", "run", "--rm", "--net=none", "-v", shared, image, "python3", "-c", ASK]
    )
    told: dict[str, Any] = json.loads(answer.splitlines()[-1])
    if not told["target"]:
        raise LabError(f"base: {told['target_fault']}; give another base (--base)")
    return str(told["target"]["key"])


def unpacked(target: str, into: Path) -> dict[str, Any]:
    """Gather the bundle, or take it as it was gathered, verify it, unpack it; its manifest."""
    folder = STATE / "bundles"
    options = {
        "bundle_directory": str(folder),
        "bundle_platforms": target,
    }
    with step(f"bundle for {target}"):
        command = ["ansible-playbook", "-i", "localhost,", "holdfast.chain.bundle"]
        capture([*command, "-e", json.dumps(options)])
    sys.path.insert(0, str(COLLECTIONS))
    from ansible_collections.holdfast.chain.plugins.module_utils import (  # noqa: PLC0415 -- a path made by setup
        bundle,
        bundle_format,
        bundle_seal,
    )

    node = CONTAINERFILE.parent
    inputs = bundle.read_inputs(node, node / "requirements.lock", node / "tools.lock")
    archive = folder / f"holdfast-node-{inputs.release}-{target}.tar"
    seal = bundle_seal.read(archive)
    into.mkdir()
    manifest: dict[str, Any] = bundle_format.unpack(archive, into, seal, [seal.public_key])
    return manifest


def build(name: str = NAME, chosen: str = "") -> Built:
    """Build the image, with the machine prepared for podman; LabError says what is missing."""
    STATE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=STATE, prefix="image-") as place:
        context = Path(place) / "context"
        for folder in (Path(place) / "base", context / "bundle", context / "init"):
            folder.mkdir(parents=True)
        image = chosen or base(Path(place) / "base")
        static_init(context / "init", image)
        podman = ["podman", "build", "-q", "--format", "docker", "--timestamp", "315532800"]
        podman += ["--file", str(CONTAINERFILE), "--build-arg", f"BASE={image}"]
        with step(f"Python and an init on {image}"):
            capture([*podman, "--target", "system", "-t", SYSTEM, str(context)])
        (context / "bundle").rmdir()
        manifest = unpacked(target_of(SYSTEM), context / "bundle")
        podman += ["--build-arg", f"VERSION={manifest['version']}"]
        podman += ["--build-arg", f"RELEASE={manifest['release']}"]
        with step(f"{name}:{manifest['version']}"):
            tags = [f"--tag={name}:{manifest['version']}", f"--tag={name}:latest"]
            capture([*podman, *tags, str(context)])
    return Built(f"{name}:{manifest['version']}", manifest["release"])


def compressed_bytes(name: str, archive: Path) -> int:
    """Write an image as an archive with compressed layers; the archive's size."""
    capture(["podman", "save", "-q", "--format", "oci-archive", "-o", str(archive), name])
    return archive.stat().st_size


def main(arguments: list[str]) -> int:
    """Exit code 0 when the image is there, 1 with the reason otherwise."""
    parser = argparse.ArgumentParser(prog="lab.node_image", description=__doc__)
    parser.add_argument("--base", default="", help="an image to build on, instead of Alpine 3.19")
    parser.add_argument("--archive", type=Path, help="also write it to this file, compressed")
    options = parser.parse_args(arguments)
    try:
        with given_back():
            machine.prepare()
            built = build(chosen=options.base)
            say(f"{built.name}: release {built.release}")
            if options.archive:
                size = compressed_bytes(built.name, options.archive)
                say(f"{options.archive}: {size / 1e6:.1f} MB")
    except LabError as error:
        print(f"image: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
