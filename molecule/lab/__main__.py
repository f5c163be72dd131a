# SPDX-License-Identifier: GPL-3.0-or-later
"""Command line of the lab: ``python3 -m lab COMMAND`` (after ``python3 -m lab.setup``)."""

from __future__ import annotations

import argparse
import json
import os
import sys

from . import demo, hosts, images, machine
from .shell import LabError, environment, given_back, say


def main(arguments: list[str]) -> int:
    """Run one command; 0 when it worked, 1 with the reason on standard error otherwise."""
    parser = argparse.ArgumentParser(prog="lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("demo", help="deploy the demo network and send a transfer through it")
    commands.add_parser("demo-down", help="remove what the demo made")
    image = commands.add_parser("image", help="find or make the image of a platform")
    image.add_argument("platform")
    up = commands.add_parser("up", help="start the hosts of a lab")
    up.add_argument("lab")
    up.add_argument("hosts", nargs="+", help="NAME, or NAME=PLATFORM")
    up.add_argument("--platform", default="debian-12", help="of hosts that name none")
    down = commands.add_parser("down", help="remove the hosts of labs")
    down.add_argument("lab", nargs="*")
    down.add_argument("--all", action="store_true", help="of all labs in this container storage")
    run = commands.add_parser("run", help="run a program with the lab's tools and settings")
    run.add_argument("program", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    try:
        with given_back():
            return dispatch(options)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


def dispatch(options: argparse.Namespace) -> int:
    """Call what the command line asks for."""
    if options.command == "run":
        os.execvpe(options.program[0], options.program, environment())  # noqa: S606 -- that is wanted
    machine.prepare()
    if options.command == "demo":
        demo.up()
    elif options.command == "demo-down":
        demo.down()
    elif options.command == "image":
        name, _ = images.provide(options.platform)
        say(f"{name} {images.inspect(name)}")
    elif options.command == "up":
        wanted = (host.partition("=") for host in options.hosts)
        names = {name: platform or options.platform for name, _, platform in wanted}
        started = hosts.up(options.lab, names)
        say(json.dumps({"started": started, "addresses": hosts.addresses(options.lab)}))
    elif options.command == "down":
        for lab in hosts.labs() if options.all else options.lab:
            hosts.down(lab)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
