# SPDX-License-Identifier: GPL-3.0-or-later
"""The demonstration: deploy inventories/demo on container hosts, send a transfer, show it all."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import urllib.request
from pathlib import Path
from typing import Any, Callable

from . import hosts, images
from .shell import ROOT, STATE, LabError, capture, environment, say, step, stream, succeeds

LAB = "demo"
PLATFORM = "debian-12"
PLACE = STATE / LAB  # keys, authority and release of the demo; lab_state in the inventory
INVENTORY = ROOT / "inventories" / LAB
API_PORT = 8545  # chain_api_port
SETTLE_SECONDS = 30
AMOUNT = 1000


class Notes:
    """What the demo remembers between runs: what it made, how long it took, its transfer."""

    def __init__(self) -> None:
        self.path = PLACE / "notes.json"
        self.content: dict[str, Any] = {}
        if self.path.exists():
            self.content = json.loads(self.path.read_text())

    def write(self, **entries: Any) -> None:
        """Add entries and save."""
        self.content.update(entries)
        PLACE.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.content, indent=2) + "\n")


def up() -> None:
    """Start the hosts, deploy, show the network; the first time also send a transfer."""
    started = float(os.environ.get("HOLDFAST_STARTED", time.time()))
    notes = Notes()
    image, made = images.provide(PLATFORM)
    if made:
        notes.write(image=image)
    names = members()
    fresh = hosts.up(LAB, dict.fromkeys(names, PLATFORM))
    changed = deploy()
    nodes = settled(names)
    show(nodes)
    if "transfer" not in notes.content:
        notes.write(transfer=transfer(url_of(nodes[0])))
    show_transfer(notes.content["transfer"], nodes)
    suggest(nodes)
    seconds = time.time() - started
    if "seconds" in notes.content:
        first = notes.content["seconds"]
        say(f"\nThis took {seconds:.0f} s; the first time took {first:.0f} s.")
        say(f"Hosts started: {fresh}. Changes by site.yml: {changed}.")
    else:
        notes.write(seconds=round(seconds))
        say(f"\nAll of it took {seconds:.0f} s.")


def members() -> list[str]:
    """The hosts of the demo inventory, validators first."""
    listing = json.loads(capture(["ansible-inventory", "-i", str(INVENTORY), "--list"]))
    return listing["validators"]["hosts"] + listing["observers"]["hosts"]


def deploy() -> int:
    """Run the site playbook as a user would; return how many tasks changed something."""
    command = ["ansible-playbook", "-i", str(INVENTORY), "holdfast.chain.site"]
    # so that `demo-down` removes the release with the rest
    command += ["-e", json.dumps({"node_bundle_directory": "{{ lab_state }}/bundles"})]
    with step("deploying: " + " ".join(Path(word).name for word in command[:4])):
        lines = stream(command, env=environment(ANSIBLE_FORCE_COLOR="0"))
    recap = [re.match(r"\S+ +: ok=\d+ +changed=(\d+)", line) for line in lines]
    return sum(int(found[1]) for found in recap if found)


def ask(url: str, path: str) -> dict[str, Any]:
    """An answer of a node's API; LabError if there is none."""
    try:
        with urllib.request.urlopen(url + path, timeout=5) as answer:  # noqa: S310 -- our own host
            return json.load(answer)
    except OSError as error:
        raise LabError(f"{url}{path} gives no answer: {error}") from error


def settled(names: list[str]) -> list[dict[str, Any]]:
    """The status of all nodes at one height, or as they are when a deadline has passed."""
    addresses = hosts.addresses(LAB)
    missing = [name for name in names if name not in addresses]
    if missing:
        raise LabError(f"{', '.join(missing)} not running: see `podman ps -a`, or `make demo-down`")
    urls = {name: f"http://{addresses[name]}:{API_PORT}" for name in names}

    def look() -> list[dict[str, Any]]:
        return [ask(url, "/v1/status") | {"url": url} for url in urls.values()]

    return poll(look, lambda found: len({entry["block_hash"] for entry in found}) == 1)


def poll(look: Callable[[], Any], enough: Callable[[Any], bool]) -> Any:
    """Look until it is enough or SETTLE_SECONDS have passed; return what was seen last."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while not enough(seen := look()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return seen


def url_of(node: dict[str, Any]) -> str:
    """Where a node's API is, as seen from this machine."""
    return str(node["url"])


def show(nodes: list[dict[str, Any]]) -> None:
    """A table of the nodes."""
    first = nodes[0]
    say(
        f"\nChain {first['chain_id']}: {first['validators']} validators, {first['quorum']} decide, "
        f"{first['tolerated_faults']} may fail."
    )
    row = "  {:<5} {:<10} {:>6}  {:<16}  {:<6} {:<7} {}"
    say(row.format("node", "role", "height", "block", "peers", "leader", "state"))
    for node in nodes:
        peers = node["peers"]
        connected = f"{sum(peer['connected'] for peer in peers)}/{len(peers)}"
        state = "in step" if node["ready"] else f"not ready: {node['reason']}"
        cells = [node["name"], node["role"], node["height"], node["block_hash"][:16]]
        say(row.format(*cells, connected, node["leader"], state))


def node_command(*arguments: str) -> dict[str, Any]:
    """Run the node's own command line on this machine; it answers in JSON."""
    return json.loads(capture(["holdfast-node", *arguments]))


def transfer(url: str) -> dict[str, Any]:
    """Sign a transfer from the demo's account to a new one, and wait until it is in a block."""
    friend = PLACE / "friend.key"
    verb = "show" if friend.exists() else "new"
    where = [str(friend)] if verb == "show" else ["--out", str(friend)]
    receiver = node_command("keys", verb, *where)["address"]
    with step(f"sending a signed transfer of {AMOUNT} to {receiver}"):
        options = ["--key", str(PLACE / "account.key"), "--to", receiver, "--amount", str(AMOUNT)]
        sent = node_command("tx", "transfer", "--url", url, *options, "--wait")
    return sent | {"to": receiver, "amount": AMOUNT}


def show_transfer(sent: dict[str, Any], nodes: list[dict[str, Any]]) -> None:
    """Where the transfer is, according to every node."""
    height = sent["height"]
    say(f"\nYour transfer {sent['id'][:16]}: {sent['amount']} to {sent['to']}")
    say(f"  committed in block {height}, {sent['latency_ms']:.0f} ms after it was sent")

    def look() -> list[str]:
        found = [(node, ask(url_of(node), f"/v1/transactions/{sent['id']}")) for node in nodes]
        return [node["name"] for node, entry in found if entry.get("height") == height]

    holders = poll(look, lambda names: len(names) == len(nodes))
    say(f"  every node is asked, and has it there: {', '.join(holders)}")
    absent = [node["name"] for node in nodes if node["name"] not in holders]
    if absent:
        raise LabError(f"the transfer is not at height {height} on {', '.join(absent)}")


def suggest(nodes: list[dict[str, Any]]) -> None:
    """Where to look and what to try."""
    page, sudo = url_of(nodes[0]), "sudo " if "SUDO_USER" in os.environ else ""
    leader = hosts.container(LAB, nodes[0]["leader"])
    other = next(node for node in nodes if node["name"] != nodes[0]["leader"])
    send = f".venv/bin/holdfast-node tx put --url {page} --key .holdfast/demo/account.key"
    say(f"\nStatus page, from this machine: {page}/")
    say("Try next:")
    say(f"  .venv/bin/holdfast-node status --url {page}")
    say(f"  {send} --name greeting --value hello --wait")
    say(f"  {sudo}podman stop {leader}    # the leader: watch {url_of(other)}/ elect another")
    say(f"  {sudo}podman start {leader}   # and see it catch up")
    say(f"  {sudo}make demo        # changes nothing, or mends what you broke")
    say(f"  {sudo}make demo-down   # removes it all")


def down() -> None:
    """Remove what `up` made, and say what stays."""
    notes = Notes()
    removed = hosts.down(LAB)
    image = notes.content.get("image")
    if image and succeeds(["podman", "image", "exists", image]):
        if capture(["podman", "ps", "-a", "-q", "--filter", f"ancestor={image}"]).strip():
            say(f"    stays, hosts of another lab use it: image {image}")
        else:
            capture(["podman", "image", "rm", image])
            removed.append(image)
            say(f"    removed: image {image}")
    if PLACE.exists():
        shutil.rmtree(PLACE)
        removed.append(str(PLACE))
        say(f"    removed: {PLACE.relative_to(ROOT)}, with the keys and the authority of the demo")
    if not removed:
        say("There was no demo to remove.")
    packages = STATE / "packages.txt"
    if packages.exists():
        say(f"Packages that were installed stay: {' '.join(packages.read_text().split())}")
    say("The tools in .venv and .holdfast stay as well; `make clean` removes them.")
