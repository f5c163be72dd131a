# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of container hosts: found, or made from what this machine can reach.

Tried in this order: an image already here; a root file system in the folder HOLDFAST_IMAGES
(`<platform>.tar*`, or a folder `<platform>/` of layers in order of name); a base image from the
registry HOLDFAST_REGISTRY names; the distribution's mirror. Definitions are molecule/images/*.toml.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, Sequence

import tomllib

from .machine import found, install
from .shell import ROOT, STATE, LabError, capture, environment, say, step, stream, succeeds
from .tools import digest

DEFINITIONS = ROOT / "molecule" / "images"
TMPFS = Path("/dev/shm")  # noqa: S108 -- a private folder is made inside; bootstrapping is faster
ROOM = 2 << 30  # bytes a bootstrap needs at most
# mmdebstrap's hooks and options that keep a container host small
SLIM = (
    "--variant=apt",
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
    "--dpkgopt=force-unsafe-io",
    *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale", "info")),
)


def definition(platform: str) -> dict[str, Any]:
    """Read a platform's definition; LabError names those there are."""
    path = DEFINITIONS / f"{platform}.toml"
    if not path.exists():
        known = ", ".join(sorted(entry.stem for entry in DEFINITIONS.glob("*.toml")))
        raise LabError(f"platform = {platform!r}: expected one of: {known}")
    return tomllib.loads(path.read_text())


def image_name(platform: str) -> str:
    """The local name of a platform's image; it changes with the definition."""
    content = (DEFINITIONS / f"{platform}.toml").read_bytes()
    return f"localhost/holdfast-host:{platform}-{digest(content)[:12]}"


def provide(platform: str) -> tuple[str, bool]:
    """Return the name of a platform's image, and whether it had to be made just now."""
    wanted = definition(platform)
    name = image_name(platform)
    if succeeds(["podman", "image", "exists", name]):
        return name, False
    STATE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=STATE, prefix="image-") as place:
        context = Path(place)
        origin, first = base(platform, wanted, context)
        (context / "prepare.sh").write_text(wanted["prepare"])
        (context / "Containerfile").write_text(
            f"{first}\n"
            "COPY prepare.sh /prepare.sh\n"
            f'RUN PACKAGES="{" ".join(wanted["packages"])}" sh /prepare.sh && rm /prepare.sh\n'
            f'CMD ["{wanted["init"]}"]\n'
            f"STOPSIGNAL {wanted['stop_signal']}\n"
            f'LABEL holdfast.origin="{origin}" holdfast.kind="{wanted["kind"]}"\n'
        )
        with step(f"turning it into {name}"):
            capture(["podman", "build", "-q", "--squash-all", "-t", name, str(context)])
    return name, True


def base(platform: str, wanted: dict[str, Any], context: Path) -> tuple[str, str]:
    """Put a root file system into the build context; return its origin and the build's start."""
    folder = os.environ.get("HOLDFAST_IMAGES")
    layers = layers_in(Path(folder), platform) if folder else []
    if layers:
        say(f"    {platform}: root file system from HOLDFAST_IMAGES")
        for layer in layers:
            shutil.copy(layer, context / layer.name)
        return "folder", "\n".join(["FROM scratch", *(f"ADD {layer.name} /" for layer in layers)])
    registry = os.environ.get("HOLDFAST_REGISTRY")
    if registry and "registry" in wanted:
        image = f"{registry.rstrip('/')}/{wanted['registry']['image']}"
        with step(f"pulling {image}"):
            stream(["podman", "pull", "-q", image])
        return "registry", f"FROM {image}"
    if "mirror" in wanted:
        bootstrap(wanted, context / "root.tar")
        return "mirror", "FROM scratch\nADD root.tar /"
    raise LabError(
        f"no image of {platform} can be had: set HOLDFAST_IMAGES to a folder with "
        f"{platform}.tar.gz (or layers in a folder {platform}), or HOLDFAST_REGISTRY to a registry"
    )


def layers_in(folder: Path, platform: str) -> list[Path]:
    """The tar files of a platform in a folder of root file systems, lowest layer first."""
    layers = sorted((folder / platform).glob("*.tar*")) or sorted(folder.glob(f"{platform}.tar*"))
    return [layer for layer in layers if layer.is_file()]


def bootstrap(wanted: dict[str, Any], target: Path, options: Sequence[str] = ()) -> None:
    """Make a root file system (tar, or folder) with mmdebstrap from the machine's own sources."""
    mirror = wanted["mirror"]
    keyring = Path(f"/usr/share/keyrings/{mirror['keyring']}.gpg")
    missing = [] if found(("mmdebstrap",)) else ["mmdebstrap"]
    install(missing + ([] if keyring.exists() else [mirror["keyring"]]))
    sources = apt_sources(mirror["origin"], mirror["release"])
    # Without sources of this origin (on another distribution) mmdebstrap knows the default mirror.
    command = ["mmdebstrap", *SLIM, f"--include={','.join(wanted['packages'])}"]
    command += [*options, *(f"--aptopt={option}" for option in apt_proxies())]
    command += [mirror["release"], str(target), *sources]
    memory = shutil.disk_usage(TMPFS).free > ROOM and os.access(TMPFS, os.W_OK)
    env = environment(TMPDIR=str(TMPFS if memory else STATE))
    # Our Python's settings are not the image's: its packages have to compile as on any host.
    env = {name: value for name, value in env.items() if not name.startswith("PYTHON")}
    with step(f"making {mirror['origin']} {mirror['release']} from its mirror (about a minute)"):
        stream(command, env=env, show=progress)


def progress(line: str) -> str | None:
    """Of mmdebstrap's output, the lines that say what it is doing."""
    found = re.match(r"I: ((?:running apt|downloading|extracting|installing|creating).*)", line)
    return found[1] if found else None


def apt_sources(origin: str, release: str) -> list[str]:
    """The machine's own sources of a release, with updates and security, as one-line entries."""
    listing = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(CODENAME) $(REPO_URI)"]
    listing.append("Created-By: Packages")
    if not capture(listing).strip():  # no package lists yet
        capture(["apt-get", "-q", "update"])
    rows = [line.split() for line in capture(listing).splitlines()]
    suites = sorted({(row[2], row[1]) for row in rows if len(row) == 3 and row[0] == origin})
    matching = [(uri, code) for uri, code in suites if re.fullmatch(rf"{release}(-\w+)?", code)]
    if not any(code == release for uri, code in matching):
        return []
    return [f"deb {uri} {code} main" for uri, code in matching]


def apt_proxies() -> list[str]:
    """The proxies and certificate settings apt uses on this machine."""
    dump = capture(["apt-config", "dump", "--no-empty", "--format", '%f "%v";%n', "Acquire"])
    lines = dump.splitlines()
    return [line for line in lines if re.match(r"Acquire::https?::(Proxy|CAInfo)\b", line)]


def inspect(name: str) -> dict[str, str]:
    """The labels of an image: where it came from and whether it is the real thing."""
    labels = json.loads(capture(["podman", "image", "inspect", name]))[0]["Labels"] or {}
    return {key.removeprefix("holdfast."): value for key, value in labels.items()}
