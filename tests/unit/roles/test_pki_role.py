# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role pki on hosts that are folders here: whose authority it takes, and who is refused."""

from __future__ import annotations

import getpass
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Callable

import pytest
from lab.shell import QUICK, environment

PASSPHRASE = "correct horse battery staple"
PLAY = {
    "hosts": "all",
    "gather_facts": True,
    "gather_subset": ["!all", "!min", "distribution"],
    "any_errors_fatal": True,  # as in site.yml
    "roles": ["holdfast.chain.pki"],
}


class Fleet:
    """Some hosts with their authority, and runs of the role on them."""

    def __init__(self, place: Path, names: str = "ab") -> None:
        self.place = place
        self.ca = place / "ca"
        place.mkdir(exist_ok=True)
        hosts = {name: {"pki_directory": str(place / name / "tls")} for name in names}
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            "pki_trust_domain": "fleet.example",
            "pki_ca_directory": str(self.ca),
            "pki_ca_passphrase": PASSPHRASE,
            "pki_owner": getpass.getuser(),
        }
        inventory = {"all": {"hosts": hosts, "vars": variables}}
        (place / "inventory.yml").write_text(json.dumps(inventory))
        (place / "play.yml").write_text(json.dumps([PLAY]))

    def run(
        self, *words: str, pipelining: bool = True, **variables: Any
    ) -> subprocess.CompletedProcess[str]:
        """The role on all hosts."""
        command = ["ansible-playbook", "-i", str(self.place / "inventory.yml")]
        command += [str(self.place / "play.yml"), "-e", json.dumps(variables), *words]
        # With Mitogen nothing passes through files, which pipelining is about.
        how = QUICK if pipelining else {"ANSIBLE_PIPELINING": "false"}
        env = environment(ANSIBLE_NOCOLOR="1", ANSIBLE_FORCE_COLOR="0", COLUMNS="160", **how)
        return subprocess.run(
            command, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )

    def crl(self, **options: Any) -> None:
        """mtls_crl on the authority."""
        options = {"directory": str(self.ca), "passphrase": PASSPHRASE, **options}
        command = ["ansible", "localhost", "-m", "holdfast.chain.mtls_crl"]
        subprocess.run(
            [*command, "-a", json.dumps(options)], env=environment(), check=True,
            capture_output=True,
        )  # fmt: skip

    def current(self, name: str) -> Path:
        """The identity in use."""
        return (self.place / name / "tls" / "current").resolve(strict=True)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """Both hosts with an identity, to be copied."""
    fleet = Fleet(tmp_path_factory.mktemp("deployed"))
    assert fleet.run().returncode == 0
    return fleet


@pytest.fixture
def fleet(deployed: Fleet, tmp_path: Path) -> Fleet:
    """The same for a test of its own."""
    for name in ("a", "b", "ca"):
        shutil.copytree(deployed.place / name, tmp_path / name, symlinks=True)
    return Fleet(tmp_path)


def _recap(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, int]]:
    """What the run says of each host in the end."""
    _, _, recap = done.stdout.partition("PLAY RECAP")
    lines = re.findall(r"^(\w+) +: (.+)$", recap, re.MULTILINE)
    return {
        name: {key: int(number) for key, number in re.findall(r"(\w+)=(\d+)", counts)}
        for name, counts in lines
    }


@pytest.mark.timeout(180)
def test_another_authority_is_made_only_on_purpose(
    fleet: Fleet, snapshot: Callable[..., Any]
) -> None:
    """Another account, another controller, a lost folder: nothing changes, and it says the way."""
    before = snapshot(fleet.place)
    elsewhere = fleet.place / "elsewhere"
    for words in (["--check"], ["--limit", "b"]):
        refused = fleet.run(*words, pki_ca_directory=str(elsewhere))
        said = re.sub(r"\s+", " ", refused.stdout)
        assert refused.returncode != 0
        assert "another_ca" in said
        assert f"expected in {elsewhere}; there is none" in said
        assert {host["changed"] for host in _recap(refused).values()} == {0}
    assert snapshot(fleet.place) == before
    old = fleet.current("a")
    new = {"pki_ca_directory": str(elsewhere), "pki_ca_new": True}
    rehearsed = fleet.run("--check", **new)
    assert rehearsed.returncode == 0, rehearsed.stdout
    assert snapshot(fleet.place) == before
    made = fleet.run(**new)
    assert made.returncode == 0, made.stdout
    assert fleet.current("a") != old
    root = (elsewhere / "authority" / "root.pem").read_bytes()
    assert {(fleet.current(name) / "ca.pem").read_bytes() for name in "ab"} == {root}
    again = fleet.run(pki_ca_directory=str(elsewhere))
    assert {host["changed"] for host in _recap(again).values()} == {0}, again.stdout


@pytest.mark.timeout(180)
def test_a_run_over_new_hosts_alone_makes_no_authority(fleet: Fleet) -> None:
    """Another account adds a host: the others would refuse it, and its authority all of them."""
    fleet = Fleet(fleet.place, "abc")
    elsewhere = fleet.place / "elsewhere"
    refused = fleet.run("--limit", "c", pki_ca_directory=str(elsewhere))
    said = re.sub(r"\s+", " ", refused.stdout)
    assert refused.returncode != 0
    assert f"localhost:{elsewhere} (pki_ca_host, pki_ca_directory): there is no authority" in said
    assert "with --limit c makes none" in said
    assert not elsewhere.exists()
    # As Ansible is by itself, what modules are told passes through files: the passphrase must not.
    added = fleet.run("--limit", "c", "-vvv", pipelining=False)
    assert added.returncode == 0, added.stdout
    written = re.findall(r" PUT \S+ TO \S+/AnsiballZ_(\w+)\.py", added.stdout)
    assert written.count("mtls_request") == written.count("mtls_crl") == 1  # on c
    assert {"mtls_ca", "mtls_sign"}.isdisjoint(written)
    roots = {(fleet.current(name) / "ca.pem").read_bytes() for name in "abc"}
    assert len(roots) == 1


@pytest.mark.timeout(180)
@pytest.mark.parametrize("lists", [True, False])
def test_a_barred_name_is_refused_and_the_others_are_served(fleet: Fleet, *, lists: bool) -> None:
    """It is left as it is, whether or not lists are published."""
    fleet.crl(revoke=[{"name": "b"}])
    before = {name: fleet.current(name) for name in "ab"}
    done = fleet.run(pki_force=True, pki_crl=lists)
    assert done.returncode != 0
    recap = _recap(done)
    assert (recap["a"]["failed"], recap["b"]["failed"]) == (0, 1)
    said = re.sub(r"\s+", " ", done.stdout)
    assert "pki_name = b: was revoked" in said
    assert "revoke_readmit=true" in said
    assert fleet.current("a") != before["a"]
    assert fleet.current("b") == before["b"]


@pytest.mark.timeout(180)
def test_a_restored_authority_does_not_forget_who_was_revoked(fleet: Fleet) -> None:
    """A host's list says it: what was revoked after the backup stays so, and its name is barred."""
    shutil.copytree(fleet.ca, fleet.place / "backup")
    fleet.crl(revoke=[{"name": "b"}])
    published = fleet.place / "a" / "tls" / "crl.pem"
    shutil.copyfile(fleet.ca / "authority" / "crl.pem", published)
    before = published.read_bytes()
    shutil.rmtree(fleet.ca)
    (fleet.place / "backup").rename(fleet.ca)
    done = fleet.run()
    recap = _recap(done)
    assert (recap["a"]["failed"], recap["b"]["failed"]) == (0, 1), done.stdout
    assert "pki_name = b: was revoked" in re.sub(r"\s+", " ", done.stdout)
    assert published.read_bytes() != before
    log = (fleet.ca / "issued.jsonl").read_text()
    assert '"event": "revoked"' in log
