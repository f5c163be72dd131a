# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of container hosts: found, or made from what this machine can reach.

An image has an *origin*, and the first of these that can be had is taken:

folder    a root file system in HOLDFAST_IMAGES (`<platform>.tar*`, or a folder `<platform>/` of
          layers in order of name)
registry  a base image from the registry that HOLDFAST_REGISTRY names
mirror    made from packages of the distribution, by the sources this machine's apt uses
stand_in  made from the image of another platform, to look like this one where that can be done

An image that was made before is taken as if its origin could still be had. Definitions are
molecule/images/*.toml; a table with an origin's name holds what is different with that origin.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, Iterator, Sequence

import tomllib

from .machine import found, install
from .shell import (
    ROOT,
    STATE,
    LabError,
    NotToBeHadError,
    capture,
    environment,
    say,
    step,
    stream,
    succeeds,
)
from .tools import digest

ORIGINS = ("folder", "registry", "mirror", "stand_in")
DEFINITIONS = ROOT / "molecule" / "images"
VERSION = re.compile(r"(\d+)").split
TMPFS = Path("/dev/shm")  # noqa: S108 -- a private folder is made inside; bootstrapping is faster
ROOM = 2 << 30  # bytes a bootstrap needs at most
# What apt says of a package, or a whole mirror, that it cannot get.
OUT_OF_REACH = "Failed to fetch|Unable to locate package|has no installation candidate"
# mmdebstrap's hooks and options that keep a container host small
SLIM = (
    "--variant=apt",
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
    "--dpkgopt=force-unsafe-io",
    *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale", "info")),
)


def definition(platform: str) -> dict[str, Any]:
    """Read a platform's definition; LabError names those there are."""
    return tomllib.loads((DEFINITIONS / f"{named(platform)}.toml").read_text())


def platforms() -> list[str]:
    """The platforms that have a definition, versions in their order."""
    found = [entry.stem for entry in DEFINITIONS.glob("*.toml")]
    return sorted(found, key=lambda name: [int(n) if n.isdigit() else n for n in VERSION(name)])


def named(platform: str) -> str:
    """A platform by its whole name; without a version, the newest of a distribution is meant."""
    known = platforms()
    newest = [name for name in known if name == platform or name.startswith(f"{platform}-")]
    if not newest:
        raise LabError(f"platform = {platform!r}: expected one of: {', '.join(known)}")
    return newest[-1]


def with_origin(wanted: dict[str, Any], origin: str) -> dict[str, Any]:
    """A definition as it holds for images of an origin."""
    return wanted | wanted.get(origin, {})


def image_name(platform: str, origin: str) -> str:
    """The local name of a platform's image; it changes with the definitions it comes from."""
    wanted = with_origin(definition(platform), origin)
    parts = [(DEFINITIONS / f"{platform}.toml").read_bytes(), script(wanted).encode()]
    if origin == "stand_in":
        parts.append((DEFINITIONS / f"{wanted['base']}.toml").read_bytes())
    return f"localhost/holdfast-host:{platform}-{origin}-{digest(*parts)[:12]}"


def script(wanted: dict[str, Any]) -> str:
    """The shell script that completes a root file system."""
    file = wanted.get("script")  # beside the definition, where it is longer
    return (DEFINITIONS / file).read_text() if file else str(wanted["prepare"])


def origins(platform: str, wanted: dict[str, Any]) -> Iterator[str]:
    """Where an image can be had from, the best first."""
    folder = os.environ.get("HOLDFAST_IMAGES")
    if folder and layers_in(Path(folder), platform):
        yield "folder"
    if os.environ.get("HOLDFAST_REGISTRY") and "registry" in wanted:
        yield "registry"
    # Where there is a stand-in, only a mirror that this machine is known to reach is tried.
    mirror = wanted.get("mirror")
    if mirror and ("stand_in" not in wanted or apt_sources(mirror["origin"], mirror["release"])):
        yield "mirror"
    if "stand_in" in wanted:
        yield "stand_in"


def provide(platform: str) -> tuple[str, bool]:
    """Return the name of a platform's image, and whether it had to be made just now.

    NotToBeHadError where nothing that it could be made from is in reach.
    """
    platform = named(platform)
    wanted = definition(platform)
    best = next(origins(platform, wanted), None)
    for origin in ORIGINS:
        name = image_name(platform, origin)
        if succeeds(["podman", "image", "exists", name]):
            return name, False
        if origin == best:
            make(platform, origin, name)
            return name, True
    raise NotToBeHadError(
        f"no image of {platform} can be had: set HOLDFAST_IMAGES to a folder with "
        f"{platform}.tar.gz (or layers in a folder {platform}), or HOLDFAST_REGISTRY to a registry"
    )


def make(platform: str, origin: str, name: str) -> None:
    """Make the image of a platform from an origin."""
    wanted = with_origin(definition(platform), origin)
    STATE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=STATE, prefix="image-") as place:
        context = Path(place)
        first = start(platform, origin, wanted, context)
        (context / "prepare.sh").write_text(script(wanted))
        (context / "Containerfile").write_text(
            f"{first}\n"
            "COPY prepare.sh /prepare.sh\n"
            f'RUN PACKAGES="{" ".join(wanted["packages"])}" sh /prepare.sh && rm /prepare.sh\n'
            f'CMD ["{wanted["init"]}"]\n'
            f"STOPSIGNAL {wanted['stop_signal']}\n"
            f'LABEL holdfast.origin="{origin}" holdfast.kind="{wanted["kind"]}"\n'
        )
        # a stand-in shares what it is based on
        squash = "--squash" if origin == "stand_in" else "--squash-all"
        with step(f"turning it into {name}"):
            capture(["podman", "build", "-q", squash, "-t", name, str(context)])


def start(platform: str, origin: str, wanted: dict[str, Any], context: Path) -> str:
    """Put what an image is made from into the build context; return how the build starts."""
    if origin == "folder":
        say(f"    {platform}: root file system from HOLDFAST_IMAGES")
        layers = layers_in(Path(os.environ["HOLDFAST_IMAGES"]), platform)
        for layer in layers:
            shutil.copy(layer, context / layer.name)
        return "\n".join(["FROM scratch", *(f"ADD {layer.name} /" for layer in layers)])
    if origin == "registry":
        image = f"{os.environ['HOLDFAST_REGISTRY'].rstrip('/')}/{wanted['image']}"
        with step(f"pulling {image}"):
            stream(["podman", "pull", "-q", image])
        return f"FROM {image}"
    if origin == "mirror":
        bootstrap(wanted, context / "root.tar")
        return "FROM scratch\nADD root.tar /"
    say(f"    {platform} cannot be had here: making a stand-in from {wanted['base']}")
    return f"FROM {provide(wanted['base'])[0]}"


def layers_in(folder: Path, platform: str) -> list[Path]:
    """The tar files of a platform in a folder of root file systems, lowest layer first."""
    layers = sorted((folder / platform).glob("*.tar*")) or sorted(folder.glob(f"{platform}.tar*"))
    return [layer for layer in layers if layer.is_file()]


def bootstrap(wanted: dict[str, Any], target: Path, options: Sequence[str] = ()) -> None:
    """Make a root file system (tar, or folder) with mmdebstrap from the machine's own sources.

    NotToBeHadError where the packages are out of reach.
    """
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
        try:
            stream(command, env=env, show=progress)
        except LabError as error:
            lacking = re.search(rf"^.*({OUT_OF_REACH}).*$", str(error), re.MULTILINE)
            if not lacking:
                raise
            raise NotToBeHadError(f"its packages: {lacking[0].strip()}") from error


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
    """The labels of an image: its origin, and its kind, which is `real` or says what it is."""
    labels = json.loads(capture(["podman", "image", "inspect", name]))[0]["Labels"] or {}
    return {key.removeprefix("holdfast."): value for key, value in labels.items()}


def describe(platform: str) -> dict[str, Any]:
    """The definition of a platform as it holds for the image it has here, which is made if need be.

    LabError where none can be had.
    """
    name, _made = provide(platform)
    return with_origin(definition(platform), inspect(name)["origin"]) | {"name": name}
