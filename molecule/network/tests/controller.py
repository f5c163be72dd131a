# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller with systemd: the observer's host with Ansible, the collection and the authority.

The machine that runs these tests need not have systemd, and a timer that is to be believed has to
fire where one is. What the controller manages is its own node, by a local connection.
"""

from __future__ import annotations

import contextlib
import io
import platform
import secrets
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Iterator

from ansible.parsing.vault import VaultLib, VaultSecret
from lab import hosts, tools
from lab.shell import ROOT, VENV, capture
from support import LAB, PLACE, Node

HOME = "/opt/controller"
CHAIN = "/srv/chain"
ANSIBLE = ("ansible-core", "jinja2", "markupsafe", "packaging", "pyyaml", "resolvelib")
SHIPPED = ("galaxy.yml", "meta", "playbooks", "plugins", "roles")
PLAYBOOK = """\
#!/opt/controller/bin/python
from ansible.cli.playbook import main
main()
"""
INVENTORY = """\
chain:
  vars:
    ansible_become: false
    ansible_python_interpreter: /usr/bin/python3
    chain_address: "{{ inventory_hostname }}"
    chain_id: demo
    chain_trust_domain: demo.example
    node_api_address: 0.0.0.0
    pki_ca_directory: /srv/chain/ca
    pki_ca_passphrase: !vault |
@VAULT@
  children:
    validators:
      hosts: {v1: {}, v2: {}, v3: {}, v4: {}}
    observers:
      hosts: {o1: {ansible_connection: local}}
"""


def wheels(python: str) -> list[Path]:
    """Ansible for that Python, e.g. 3.11, as this checkout's lock has it; kept for the scenario."""
    place = PLACE / "wheels"
    if not place.exists():
        lock = PLACE / "ansible.txt"
        lock.write_text("".join(map(tools.locked, ANSIBLE)))
        command = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "-q"]
        command += ["download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        command += ["--python-version", python, "--dest", str(place), "-r", str(lock)]
        for system in ("manylinux2014", "manylinux_2_28"):
            command += ["--platform", f"{system}_{platform.machine()}"]
        capture(command)
    return sorted(place.glob("*.whl"))


def _packed(files: dict[str, bytes], folders: dict[str, Path]) -> bytes:
    """A tar archive: contents and folders by their path in it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.size, entry.mode = len(content), 0o755 if "/bin/" in name else 0o600
            archive.addfile(entry, io.BytesIO(content))
        for name, folder in folders.items():
            archive.add(folder, name.lstrip("/"))
    return buffer.getvalue()


def _copy(node: Node, archive: bytes) -> None:
    command = ["podman", "exec", "-i", hosts.container(LAB, node.name), "tar", "-x", "-C", "/"]
    subprocess.run([*command, "--no-same-owner"], input=archive, check=True)


@contextlib.contextmanager
def controller(node: Node) -> Iterator[None]:
    """Make the node's host the controller of its own node; the authority moves there and back."""
    words = "import sys; print('%d.%d' % sys.version_info[:2])"
    python = node.host.check_output(f'python3 -c "{words}"')
    node.host.check_output(f"python3 -m venv --without-pip --system-site-packages {HOME}")
    files = {f"{HOME}/bin/ansible-playbook": PLAYBOOK.encode()}
    for wheel in wheels(python):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                files[f"{HOME}/lib/python{python}/site-packages/{name}"] = archive.read(name)
    vault_password = secrets.token_hex(16)
    passphrase = (PLACE / "ca-passphrase").read_bytes().split()[0]
    secret = VaultLib([("default", VaultSecret(vault_password.encode()))]).encrypt(passphrase)
    sealed = "\n".join(" " * 6 + line for line in secret.decode().splitlines())
    files[f"{CHAIN}/hosts.yml"] = INVENTORY.replace("@VAULT@", sealed).encode()
    files["/root/.vault-password"] = vault_password.encode()
    collection = f"{HOME}/collections/ansible_collections/holdfast/chain"
    folders = {f"{collection}/{name}": ROOT / name for name in SHIPPED}
    folders[f"{CHAIN}/ca"] = PLACE / "ca"
    _copy(node, _packed(files, folders))
    try:
        yield
    finally:
        there = f"{hosts.container(LAB, node.name)}:{CHAIN}/ca/."
        capture(["podman", "cp", there, str(PLACE / "ca")])
        node.host.check_output(f"rm -rf {HOME} {CHAIN} /root/.vault-password /root/.ansible")


def play(node: Node, playbook: str, **variables: str) -> str:
    """Run a playbook of the collection on the controller; its output."""
    given = " ".join(f"-e {key}='{value}'" for key, value in variables.items())
    where = f"LC_ALL=C.UTF-8 ANSIBLE_COLLECTIONS_PATH={HOME}/collections"
    command = f"env {where} {HOME}/bin/ansible-playbook holdfast.chain.{playbook} {given}"
    return str(node.host.check_output(command))
