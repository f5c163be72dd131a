# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""firewall_rules on a host: apply what was planned, prove it, have it confirmed or undone.

There is one undo, whatever ends a change: it is written down before anything changes, and run by
this process if a step fails, by the next run if this one was killed, and by the host itself if
nobody confirms in time. What decides about the next boot is written at the confirmation, so that
switching the host off and on ends an unconfirmed change as well.
"""

from __future__ import annotations

import contextlib
import json
import posixpath
import sys
import time
from typing import Any, Iterator, Mapping, Sequence

from ansible_collections.holdfast.chain.plugins.module_utils import firewall_program as program
from ansible_collections.holdfast.chain.plugins.module_utils.files import locked
from ansible_collections.holdfast.chain.plugins.module_utils.firewall import (
    FirewallError,
    Profile,
    refused_connection,
)
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_pending import (
    as_after_undo,
    mode,
    pending_of,
    repairs,
    timer,
)
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_plan import (
    Planned,
    Request,
    digest,
    plan,
)
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_read import (
    FIREWALLD_UNDO,
    GUARD,
    POLICY_FILE,
    RECORD,
    RUNLEVEL,
    FirewallHost,
    Observed,
    connection,
    gates,
    read,
)
from ansible_collections.holdfast.chain.plugins.module_utils.firewall_render import policy, table
from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import HostError
from ansible_collections.holdfast.chain.plugins.module_utils.plan import Change, Plan
from ansible_collections.holdfast.chain.plugins.module_utils.transaction import TransactionError

_LOCKED = "/var/lib"
EMPTY = Profile((), (), None, (), False)


class NotProvedError(Exception):
    """Something is not as it was set."""


class OvertakenError(Exception):
    """The host has undone the change while it was being made."""


class Run:
    """One run of the module on a host."""

    def __init__(self, host: FirewallHost, request: Request) -> None:
        self.host = host
        self.request = request
        self.firewall = program.Firewall(host.root, host.feed)
        self.warnings: list[str] = []
        self._step = "read the host"
        self._armed = False

    def check(self) -> dict[str, Any]:
        """What a run would do. Nothing is touched."""
        pending = self.firewall.pending()
        seen = read(self.host, self.request.profile)
        if pending is not None:
            seen = as_after_undo(self.host, seen, pending)
        planned = plan(self.request, seen)
        self._refuse(planned)
        if seen.nft and planned.table:
            self._must(["nft", "-c", "-f", "-"], planned.table)
        return self._result(repairs(self.host, pending), seen, planned)

    def execute(self) -> dict[str, Any]:
        """Repair, read, plan, apply, prove."""
        with locked(self.host.path(_LOCKED)):
            pending = self.firewall.pending()
            repaired = repairs(self.host, pending)
            if pending is not None:
                _undone, failed = self.firewall.undo()
                self.warnings += [f"an unconfirmed change: not undone: {item}" for item in failed]
            seen = read(self.host, self.request.profile)
            planned = plan(self.request, seen)
            self._refuse(planned)
            self._programs_there(seen, planned)
            if planned.table:
                self._must(["nft", "-c", "-f", "-"], planned.table)
            result = self._result(repaired, seen, planned)
            if planned.plan:
                result.update(self._apply(seen, planned))
            elif not self.request.present:
                self._tidy()  # which an earlier run may not have come to
            for name, fault in seen.faults.items():
                if fault:
                    self.warnings.append(f"gate {name} stays closed: {fault}")
            return result

    def _refuse(self, planned: Planned) -> None:
        """A profile that would cut the connection it came over; before anything changes."""
        came = connection(self.host)
        if came is not None and planned.loads and self.request.present:
            fault = refused_connection(self.request.profile, came.source, came.server_port)
            if fault:
                raise FirewallError(fault)

    def _programs_there(self, seen: Observed, planned: Planned) -> None:
        if not self.request.present:
            return
        if not seen.nft:
            raise HostError("nft is not there: install the package nftables")
        if planned.backend == "firewalld" and seen.firewalld == "absent":
            raise HostError("backend = firewalld: there is no such service; install firewalld")
        if planned.backend == "nftables" and seen.boot_file is None:
            raise HostError(
                "no file of nftables for the boot (/etc/nftables.conf, /etc/nftables.nft, "
                "/etc/sysconfig/nftables.conf): install the distribution's package nftables"
            )

    def _apply(self, seen: Observed, planned: Planned) -> dict[str, Any]:
        confirm = planned.loads and self.request.confirm_within > 0
        pending = pending_of(self.host, self.request, seen, planned)
        try:
            self._arm(pending, confirm)
            self._change(pending, seen, planned)
            after = read(self.host, self.request.profile)
            self._prove(planned, after)
            if not confirm:
                self._finish(pending)
        except BaseException as error:
            # Also what this run did after the host had undone the change.
            change = pending if self._armed else None
            undone, failed = self.firewall.undo(pending["token"], change)
            self._stop_timer(pending)
            self._tidy()
            if isinstance(error, Exception):
                raise TransactionError(self._step, error, undone, failed) from error
            raise
        return {
            "pending": confirm,
            "gates": gates(self.request.profile, after),
        }

    def _arm(self, pending: Mapping[str, Any], confirm: bool) -> None:
        """From here on there is somebody who undoes the change, if this process does not."""
        self._step = "arm the undo"
        state = self.host.path(program.STATE)
        state.mkdir(mode=0o700, exist_ok=True)
        self.host.path(program.UNDONE).unlink(missing_ok=True)
        undo = self.request.programs[program.PROGRAM]
        program.replace(self.host.path(program.UNDO), undo.encode(), 0o700)
        text = json.dumps(pending).encode("ascii")
        program.replace(self.host.path(program.PENDING), text, 0o600)
        self._armed = True
        if not confirm:
            return
        command = [sys.executable, "-I", program.UNDO, "undo", pending["token"]]
        if self.host.systemd_runs():
            unit = [f"--unit={timer(pending)}", f"--on-active={pending['within']}s"]
            exact = ["--timer-property=AccuracySec=100ms", "--collect", "--quiet"]
            self._must(["systemd-run", *unit, *exact, *command])
        else:
            self.host.leave([*command, "--after", str(pending["within"])])

    @contextlib.contextmanager
    def _still_pending(self, pending: Mapping[str, Any], lock: str = program.RUN) -> Iterator[None]:
        """Keep the host from undoing the change meanwhile; OvertakenError if it has done so."""
        with self.firewall.locked(lock):
            noted = self.firewall.pending()
            if noted is None or noted["token"] != pending["token"] or noted["undoing"]:
                raise OvertakenError(
                    f"the host has undone the change: it took longer than confirm_within = "
                    f"{pending['within']} s; run again with more of them, 60 at most"
                )
            yield

    def _change(self, pending: Mapping[str, Any], seen: Observed, planned: Planned) -> None:
        with self._still_pending(pending, program.STATE):  # the other lock is for guards to take
            self._stop_guards(planned)
        with self._still_pending(pending):
            for name, text in planned.now.items():
                self._step = f"write {name}"
                self._put(name, text, mode(self.host, name))
        if any("/systemd/" in name for name in planned.now):
            self._command(["systemctl", "daemon-reload"])
        if POLICY_FILE in planned.now and seen.firewalld != "absent":
            self._command(["firewall-offline-cmd", "--check-config"])
        if planned.start_firewalld:
            self._command(["systemctl", "start", "firewalld.service"])
        elif planned.reload_firewalld:
            self.warnings.append(
                "firewalld has read its files again: what others had set without --permanent is "
                "gone"
            )
            self._command(["firewall-cmd", "--reload"])
        with self._still_pending(pending):
            if self.request.present:
                self._step = "mark gates"
                self.firewall.mark(planned.opening, planned.closing)
            if planned.table is not None:
                self._step = "load the rules"
                gone = f"table {program.TABLE}\ndelete table {program.TABLE}\n"
                self._must(["nft", "-f", "-"], planned.table or gone)
            if self.request.present:
                self._step = "open and close gates"
                fault = self.firewall.sync()
                if fault:
                    raise OSError(fault)
        with self._still_pending(pending, program.STATE):
            self._start_guards(planned)
        with self._still_pending(pending):
            self._step = f"write {RECORD}"
            self._record()

    def _stop_guards(self, planned: Planned) -> None:
        """End OpenRC's own services for gates while there is all that they need to end."""
        for name, text in planned.now.items():
            if name.startswith(GUARD) and self.host.exists(name):
                service = posixpath.basename(name)
                self._command(["rc-service", service, "stop"])
                if text is None and self.host.is_link(f"{RUNLEVEL}/{service}"):
                    self._command(["rc-update", "del", service, "default"])

    def _start_guards(self, planned: Planned) -> None:
        """Let OpenRC's own services for gates follow theirs."""
        for name, text in planned.now.items():
            if name.startswith(GUARD) and text is not None:
                service = posixpath.basename(name)
                self._command(["rc-update", "add", service, "default"])
                self._command(["rc-service", service, "restart"])

    def _record(self) -> None:
        """What the programs list after this profile was loaded: how the next run knows it again."""
        seen = read(self.host, EMPTY)
        record: dict[str, Any] = {}
        if self.request.present and seen.live_table is not None:
            text = table(self.request.profile)
            record["table"] = {"file": digest(text), "live": digest(seen.live_table)}
        if self.request.present and seen.live_policy is not None:
            text = policy(self.request.profile)
            record["policy"] = {"file": digest(text), "live": digest(seen.live_policy)}
        program.replace(self.host.path(RECORD), json.dumps(record).encode(), 0o600)

    def _prove(self, planned: Planned, after: Observed) -> None:
        """Only what the confirmation is for is left to do."""
        self._step = "prove"
        left = plan(self.request, after)
        rest = list(left.now)
        rest += ["table"] if left.table is not None else []
        rest += ["firewalld"] if left.start_firewalld or left.reload_firewalld else []
        if rest:
            raise NotProvedError(f"{', '.join(rest)}: not as it was set")
        lost = [name for name in planned.opening if after.running[name] and not after.open[name]]
        if lost:
            raise NotProvedError(f"gate {lost[0]} is closed although {planned.opening} were opened")

    def _finish(self, pending: Mapping[str, Any]) -> None:
        """Make the change last; the undo is gone with the last step."""
        for entry in pending["boot"]:
            self._step = f"write {entry['path']}"
            self._put(entry["path"], entry["content"], entry["mode"])
        if any(entry["path"].startswith("/etc/systemd/") for entry in pending["boot"]):
            self._command(["systemctl", "daemon-reload"])
        for command in pending["finish_commands"]:
            self._command(command)
        if not pending["present"]:
            self._step = f"remove {RECORD}"
            self.host.path(RECORD).unlink(missing_ok=True)
        self._step = f"remove {program.PENDING}"
        self.host.path(program.PENDING).unlink()
        try:
            self.firewall.forget()
            self._stop_timer(pending)
            self._tidy()
        except OSError as error:  # the change is done; this is for another run
            self.warnings.append(f"could not tidy up: {error}")

    def _tidy(self) -> None:
        """Without rules there is no use for what they needed."""
        self.host.path(program.UNDONE).unlink(missing_ok=True)
        if not self.host.exists(RECORD) and self.firewall.pending() is None:
            self.host.path(program.UNDO).unlink(missing_ok=True)
            for name in (program.GATES, program.TABLE_FILE, RECORD):
                program.remove_empty(self.host.path(posixpath.dirname(name)))

    def _stop_timer(self, pending: Mapping[str, Any]) -> None:
        """Only tidiness: an undo whose token is gone does nothing."""
        if self.host.systemd_runs():
            self.host.run(["systemctl", "stop", "--quiet", timer(pending) + ".timer"])

    def _put(self, name: str, text: str | None, mode: int) -> None:
        path = self.host.path(name)
        if text is None:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        program.replace(path, text.encode("utf-8", "surrogateescape"), mode)

    def _command(self, command: Sequence[str]) -> None:
        self._step = f"run {command[0]}"
        self._must(command)

    def _must(self, command: Sequence[str], text: str | None = None) -> None:
        code, out, error = self.host.feed(command, text)
        if code:
            said = (error or out).strip() or f"exit code {code}"
            raise HostError(f"{' '.join(command)}: {said}")

    def confirm(self) -> dict[str, Any]:
        """Confirm the pending change: it lasts from now on."""
        with locked(self.host.path(_LOCKED)):
            pending = self.firewall.pending()
            if pending is None:
                undone = json.loads(self.host.read(program.UNDONE) or "null")
                if undone is None:
                    return {**Plan().result(), "pending": False}
                when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(undone["at"]))
                raise HostError(
                    f"the change was undone at {when}, since nobody had confirmed it; make sure "
                    "that the controller's networks are in management_networks, and run again"
                )
            if pending["boot_id"] != self.host.boot_id():
                _undone, failed = self.firewall.undo(pending["token"])
                left = f"; not undone: {'; '.join(failed)}" if failed else ""
                raise HostError(
                    "the host was started anew before the change was confirmed, which drops it; "
                    f"the rest of it was undone{left}: run again"
                )
            came = connection(self.host)
            if came is not None and came.text == pending["connection"]:
                raise HostError(
                    "this is the connection that the change was made over, which shows nothing: "
                    "confirm over a new one, after 'meta: reset_connection'"
                )
            with self.firewall.locked():
                if pending["undoing"] or self.firewall.pending() != pending:
                    raise HostError(
                        "the change has just been undone: nobody had confirmed it in time"
                    )
                try:
                    self._finish(pending)
                except Exception as error:
                    raise TransactionError(
                        self._step,
                        error,
                        [],
                        [f"the host undoes the change within {pending['within']} s"],
                    ) from error
            return {
                **Plan(
                    Change(
                        entry["path"], "unconfirmed", "confirmed", "it decides about the next boot"
                    )
                    for entry in pending["boot"]
                    if entry["path"] != FIREWALLD_UNDO
                ).result(),
                "pending": False,
            }

    def _result(self, repaired: Plan, seen: Observed, planned: Planned) -> dict[str, Any]:
        result = (repaired + planned.plan).result()
        result["backend"] = planned.backend
        result["repaired"] = [change.target for change in repaired]
        result["pending"] = False
        result["confirm_within"] = self.request.confirm_within
        result["gates"] = gates(self.request.profile, seen)
        return result


def run(
    host: FirewallHost, request: Request, check: bool, confirming: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """The module's result and warnings.

    Raises FirewallError, HostError or TransactionError; the host is then as it was.
    """
    task = Run(host, request)
    if confirming:
        result = task.confirm() if not check else {**Plan().result(), "pending": False}
    else:
        result = task.check() if check else task.execute()
    return result, task.warnings
