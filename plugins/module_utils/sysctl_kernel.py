# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The running kernel's parameters: what there is, what may be set, and how to take it back."""

from __future__ import annotations

import difflib
import errno
import os
import re
from typing import Any, Iterator, Mapping

from ansible_collections.holdfast.chain.plugins.module_utils.hostfs import Host
from ansible_collections.holdfast.chain.plugins.module_utils.sysctl import display, same_value
from ansible_collections.holdfast.chain.plugins.module_utils.sysctl_boot import (
    RIVALS,
    wildcard_matches,
)

ROOT = "/proc/sys"

# Parameters of the machine that a network namespace of a container does not even show (kernels up
# to 6.18; newer ones show more of them). Documentation/admin-guide/sysctl/net.rst.
_OF_THE_MACHINE = re.compile(
    r"net/core/(bpf_jit_\w+|busy_poll|busy_read|default_qdisc|dev_weight\w*|devconf_inherit_init_net"
    r"|fb_tunnels_only_for_init_net|flow_limit_\w+|gro_normal_batch|high_order_alloc_disable"
    r"|max_skb_frags|mem_pcpu_rsv|message_(burst|cost)|netdev_\w+|optmem_max|[rw]mem_(max|default)"
    r"|rps_sock_flow_entries|skb_defer_max|tstamp_allow_data|warnings)"
    r"|net/ipv4/(tcp_mem|udp_mem|tcp_(allowed|available)_\w+|tcp_low_latency|tcp_max_orphans"
    r"|cipso_\w+|fib_sync_mem|inet_peer_\w+|ipfrag_secret_interval|icmp_msgs_\w+)"
    r"|net/ipv[46]/neigh/default/\w+"
    r"|net/ipv6/(calipso_\w+|ip6frag_secret_interval|mld_\w+)|net/ipv[46]/route/\w+"
    r"|net/(netfilter/nf_conntrack_(buckets|max|expect_max)|netfilter/nf_log_all_netns"
    r"|nf_conntrack_max)"
)
# Groups that only exist once a module is loaded.
_MODULES = (
    ("net/netfilter/nf_conntrack", "nf_conntrack"),
    ("net/bridge", "br_netfilter"),
    ("net/ipv4/vs", "ip_vs"),
    ("net/sctp", "sctp"),
    ("fs/nfs", "nfs"),
    ("sunrpc", "sunrpc"),
)
# What some parameters set besides themselves (Documentation/networking/ip-sysctl.rst): forwarding
# resets a whole family, conf/all and conf/default reach into interfaces.
_COLLATERAL = (
    (re.compile(r"net/ipv4/(ip_forward|conf/(all|default)/.*)"), "net/ipv4/conf/*/*"),
    (re.compile(r"net/ipv6/conf/(all|default)/.*"), "net/ipv6/conf/*/*"),
)
# Cannot be taken back before the next boot, hence set last.
_ONE_WAY = re.compile(
    r"kernel/(modules_disabled|kexec_load_disabled|unprivileged_bpf_disabled|yama/ptrace_scope"
    r"|kexec_load_limit_\w+)|fs/verity/require_signatures"
)
_REACHING_FAR = (
    re.compile(r"net/ipv4/ip_forward"),
    re.compile(r"net/ipv[46]/conf/all/(forwarding|disable_ipv6)"),
    re.compile(r"net/ipv[46]/conf/all/.*"),
    re.compile(r"net/ipv[46]/conf/default/.*"),
)


class Kernel:
    """The parameters below /proc/sys of a host.

    shown: values to be taken for those the kernel shows, by key: how it will be after a repair.
    """

    def __init__(self, host: Host, shown: Mapping[str, str] | None = None) -> None:
        self._host = host
        self._shown = dict(shown or {})
        self._in_container: bool | None = None

    def _name(self, key: str) -> str:
        return f"{ROOT}/{key}"

    def exists(self, key: str) -> bool:
        """Whether there is such a parameter or group."""
        return self._host.path(self._name(key)).exists()

    def is_group(self, key: str) -> bool:
        """Whether it is a group of parameters."""
        return self._host.path(self._name(key)).is_dir()

    def read(self, key: str) -> str | None:
        """What the kernel shows; None where it shows nothing (write-only, or not set yet)."""
        if key in self._shown:
            return self._shown[key]
        return self._host.read_kernel(self._name(key))

    def write(self, key: str, value: str) -> None:
        """Set a parameter with one write; OSError with the kernel's own reason."""
        self._host.write_kernel(self._name(key), value)

    def readable(self, key: str) -> bool:
        """Whether its mode lets anybody read it."""
        return bool(self._host.mode(self._name(key)) & 0o444)

    def settable(self, key: str) -> bool:
        """Whether its mode lets anybody write it; some only show something."""
        return bool(self._host.mode(self._name(key)) & 0o222)

    def obstacle(self, key: str) -> str | None:
        """Why this system may not set a parameter that others may; None if it may.

        Found without writing: check mode has to know it too.
        """
        name = self._name(key)
        if self._host.read_only_mount(name):
            return "belongs to the machine: it is on a read-only mount here"
        if not self.settable(key):
            if key.startswith("net/") and (_OF_THE_MACHINE.fullmatch(key) or self._contained()):
                return "belongs to the machine: this network namespace only shows it"
            return None
        if not self._host.may_write(name):
            return "belongs to the machine: the users of this container may not write it"
        return None

    def _contained(self) -> bool:
        if self._in_container is None:
            self._in_container = self._host.in_container()
        return self._in_container

    def absence(self, key: str) -> str | None:
        """Why a real parameter is not shown here; None if it may be no parameter at all."""
        if _OF_THE_MACHINE.fullmatch(key) and self.exists("net/core"):
            return "belongs to the machine: this network namespace does not have it"
        return None

    def module_for(self, key: str) -> str | None:
        """The kernel module whose parameter it seems to be."""
        return next((module for prefix, module in _MODULES if key.startswith(prefix)), None)

    def expand(self, pattern: str) -> list[str]:
        """The parameters a pattern with wildcards stands for; not groups. Wide ones come first."""
        found = [key for key in self._walk(pattern) if wildcard_matches(pattern, key)]
        return sorted((key for key in found if not self.is_group(key)), key=rank)

    def _walk(self, pattern: str) -> Iterator[str]:
        """Keys as deep as the pattern that agree with it, component by component."""
        level = [""]
        for part in pattern.split("/"):
            level = [
                f"{parent}/{name}".lstrip("/")
                for parent in level
                for name in self._host.names(f"{ROOT}/{parent}".rstrip("/"))
                if wildcard_matches(part, name)
            ]
        return iter(level)

    def similar(self, key: str) -> list[str]:
        """Names of existing parameters that a misspelt one may stand for, the closest first."""
        joined = key.replace("/", ".")
        there = list(self._all())
        # an interface's name with a dot, written with dots only
        same_letters = [name for name in there if name.replace("/", ".") == joined]
        by_letters = {display(name): name for name in there}
        close = difflib.get_close_matches(display(key), by_letters, n=3, cutoff=0.8)
        last = key.rpartition("/")[2]
        elsewhere = [name for name in there if name.rpartition("/")[2] == last]
        if not close and not same_letters:
            close = [display(name) for name in elsewhere[:3]]
        return list(dict.fromkeys([*map(display, same_letters), *close]))

    def _all(self) -> Iterator[str]:
        top = str(self._host.path(ROOT))
        for directory, _directories, names in os.walk(top):
            parent = os.path.relpath(directory, top)
            for name in sorted(names):
                yield name if parent == "." else f"{parent}/{name}"

    def collateral(self, key: str) -> dict[str, str]:
        """Values of other parameters that setting this one may change."""
        found: dict[str, str] = {}
        for pattern, reach in _COLLATERAL:
            if pattern.fullmatch(key):
                names = self.expand(reach)
                found.update(
                    (name, text) for name in names if (text := self.read(name)) is not None
                )
        rival = RIVALS.get(key)
        if rival is not None and (shown := self.read(rival)) is not None:
            found[rival] = shown
        found.pop(key, None)
        return found

    def restore(self, key: str, before: str | None, collateral: Mapping[str, str]) -> None:
        """Make a parameter, and what setting it may have changed, show what they did before."""
        rival = RIVALS.get(key)
        if rival in collateral and before is not None and same_value(key, before, "0"):
            self._put_back(rival, collateral[rival])  # which makes this one show 0 again
        elif before is not None:
            self._put_back(key, before)
        for name in sorted(collateral, key=rank):
            if name != rival and self.settable(name):
                self._put_back(name, collateral[name])

    def _put_back(self, key: str, value: str) -> None:
        if self.exists(key) and self.read(key) != value:
            self.write(key, value)


def rank(key: str) -> int:
    """Where a parameter belongs in an order of writes: wide effects first, one-way ones last."""
    for number, pattern in enumerate(_REACHING_FAR):
        if pattern.fullmatch(key):
            return number
    return len(_REACHING_FAR) + (1 if _ONE_WAY.fullmatch(key) else 0)


def one_way(key: str) -> bool:
    """Whether the kernel keeps a value until the next boot once it is set."""
    return _ONE_WAY.fullmatch(key) is not None


def refusal(key: str, value: str, error: OSError) -> str:
    """A sentence for a value that the kernel did not take."""
    meaning: dict[Any, str] = {
        errno.EINVAL: "the kernel does not take this value",
        errno.ERANGE: "the value is out of the kernel's range",
        errno.EPERM: "the kernel does not allow it",
        errno.EACCES: "the kernel does not allow it",
        errno.EROFS: "it is on a read-only mount",
        errno.EBUSY: "it is in use",
        errno.ENOMEM: "there is not enough memory for it",
    }
    reason = meaning.get(error.errno, "the kernel refused it")
    return f"{display(key)} = {value}: {reason} ({os.strerror(error.errno or 0)})"
