# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documents say of platforms is what molecule/images and tests/scenarios.py say."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "molecule"), str(ROOT / "tests")]

import scenarios  # noqa: E402 -- it is no installed package
from lab import images  # noqa: E402
from lab.hosts import MANAGERS  # noqa: E402
from lab.shell import LabError, NotToBeHadError  # noqa: E402

PAGE = (ROOT / "docs" / "platforms.md").read_text()
ROWS = {
    match[1]: [cell.strip() for cell in match[0].strip("|").split("|")]
    for match in re.finditer(r"^\|.*molecule/images/([\w.-]+)\.toml.*\|$", PAGE, re.M)
}


def test_every_platform_is_defined_and_told() -> None:
    """None is promised without a definition, and none has one that nobody hears of."""
    assert set(scenarios.SUPPORTED) == set(images.platforms()) == set(ROWS)


@pytest.mark.parametrize("platform", scenarios.SUPPORTED)
def test_page_says_what_an_image_is(platform: str) -> None:
    """Its service manager, and for every origin that is not the real thing what it is instead."""
    wanted = images.definition(platform)
    _name, _file, manager, told = ROWS[platform]
    assert manager == wanted["manager"]
    assert manager in MANAGERS
    for origin in images.ORIGINS:
        kind = images.with_origin(wanted, origin)["kind"]
        assert kind == "real" or (origin in wanted and kind in told), origin


@pytest.mark.parametrize("platform", scenarios.SUPPORTED)
def test_definition_is_complete_for_every_origin(platform: str) -> None:
    """So that what cannot be tried on this machine at least says all that is needed."""
    wanted = images.definition(platform)
    names = set()
    for origin in images.ORIGINS:
        merged: dict[str, Any] = images.with_origin(wanted, origin)
        assert {"kind", "init", "manager", "stop_signal", "packages"} <= merged.keys()
        assert "\nset -e" in "\n" + images.script(merged)
        names.add(images.image_name(platform, origin)) if origin in wanted else None
    assert len(names) == len({*images.ORIGINS} & wanted.keys())
    assert "registry" in wanted


def test_a_distribution_means_its_newest_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3.20 is newer than 3.9, and what is no platform is refused with those that are."""
    for name in ("alpine-3.9", "alpine-3.20", "ubuntu-24.04"):
        (tmp_path / f"{name}.toml").write_text(f'name = "{name}"\n')
    monkeypatch.setattr(images, "DEFINITIONS", tmp_path)
    assert images.definition("alpine") == {"name": "alpine-3.20"}
    assert images.definition("alpine-3.9") == {"name": "alpine-3.9"}
    for wrong in ("alp", "fedora", ""):
        with pytest.raises(LabError, match=r"one of: alpine-3\.9, alpine-3\.20, ubuntu"):
            images.definition(wrong)


@pytest.mark.parametrize(
    ("said", "lacking"),
    [
        ("E: Failed to fetch http://mirror/InRelease  Could not connect", True),
        ("E: Unable to locate package chrony", True),
        ("dpkg: error processing package chrony (--configure)", False),
    ],
)
def test_packages_out_of_reach_are_told_from_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, lacking: bool
) -> None:
    """The one is not run, the other failed."""

    def stream(*_command: object, **_more: object) -> list[str]:
        raise LabError(f"`mmdebstrap` ended with 25:\n      {said}\n      E: apt-get failed")

    monkeypatch.setattr(images, "stream", stream)
    monkeypatch.setattr(images, "install", lambda _packages: None)
    monkeypatch.setattr(images, "capture", lambda _command: "Debian bookworm http://mirror/")
    with pytest.raises(LabError) as caught:
        images.bootstrap(images.definition("debian-12"), tmp_path / "root.tar")
    assert isinstance(caught.value, NotToBeHadError) == lacking
    assert said in str(caught.value)


def test_images_name_no_registry_and_no_place() -> None:
    """Those belong into the environment."""
    for path in (ROOT / "molecule" / "images").iterdir():
        assert not re.search(r"docker\.io|quay\.io|ghcr\.io|/home/|/root/", path.read_text()), path


def test_what_is_left_out_is_told() -> None:
    """The page names what `make test` leaves to `make test-platforms`."""
    mixed = scenarios.members().values()
    for platform, roles in scenarios.DAILY.items():
        told = ["a host of the mixed network"] if platform in mixed else []
        told = [", and ".join([", ".join(roles), *told] if roles else told)]
        assert f"| {platform} | {told[0]} |" in PAGE
        assert set(roles) <= set(scenarios.roles())
