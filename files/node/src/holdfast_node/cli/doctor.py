# SPDX-License-Identifier: Apache-2.0
"""`holdfast-node doctor`."""

import os
import sys
from pathlib import Path

import click

from holdfast_node.config import examine as examine_config
from holdfast_node.doctor import examine
from holdfast_node.errors import ConfigError
from holdfast_node.folder import data_folder
from holdfast_node.vote_log import VoteLog


@click.command()
@click.option("--config", "path", type=click.Path(path_type=Path), required=True)
@click.option(
    "--credentials",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder for credential:NAME, where systemd does not provide it.",
)
@click.option(
    "--accept-copy",
    is_flag=True,
    help="Vouch that this folder is the newest one: no node ran since it was copied. To be run as "
    "the owner of the folder.",
)
def command(path: Path, credentials: Path | None, accept_copy: bool) -> None:  # noqa: FBT001 -- click passes flags so
    """Say what is wrong with the data folder of a stopped node, and how to mend it.

    Changes nothing without --accept-copy. Ends with 1 if the node would not start.
    """
    config, faults, _ = examine_config(path, credentials)
    if config is None or faults:
        raise ConfigError(faults)
    if not config.data_dir.is_dir():
        click.echo(f"note   {config.data_dir}: no such folder yet: a start makes it")
        return
    validator = config.role == "validator"
    owner = config.data_dir.stat().st_uid
    if accept_copy and owner != os.geteuid():
        # The journal would become this user's, and the node could not write it any more.
        fault = (
            f"data_dir = {config.data_dir}: belongs to uid {owner}, as uid {os.geteuid()} nobody "
            f"can vouch for it: run --accept-copy as the owner (sudo -u '#{owner}' ...)"
        )
        raise ConfigError([fault])
    with data_folder(config.data_dir) as folder:
        if accept_copy and validator:
            votes = VoteLog(folder)
            try:
                votes.accept()
            finally:
                votes.close()
        findings = list(examine(folder, config.read_genesis(), validator=validator))
    for finding in findings:
        click.echo(f"{finding.grade:6} {finding.text}")
    sys.exit(1 if any(finding.grade == "fault" for finding in findings) else 0)
