# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names an identity may carry: DNS names, addresses and SPIFFE ids. Pure; standard library only."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Iterable, NamedTuple

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PATH_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")

_MAX_DNS_NAME = 253  # RFC 1035, section 2.3.4, without the root label
_MAX_SPIFFE_ID = 2048  # SPIFFE-ID standard, section 2.3
_MAX_COMMON_NAME = 64  # ub-common-name, RFC 5280, appendix A.1


class SpiffeId(NamedTuple):
    """The two parts of spiffe://trust_domain/path; path starts with a slash."""

    trust_domain: str
    path: str

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}{self.path}"


def check_dns_name(name: str, option: str = "dns") -> str:
    """The name in lower case, as certificates carry it.

    Raises ValueError unless it is a host name in the preferred syntax that RFC 5280, section
    4.2.1.6 demands: letters, digits and inner hyphens, no wildcard, no underscore.
    """
    lower = name.lower()
    if not _DNS_NAME.fullmatch(lower) or len(lower) > _MAX_DNS_NAME:
        raise ValueError(
            f"{option}: '{name}' is not a DNS name: expected labels of letters, digits and inner "
            f"hyphens, at most {_MAX_DNS_NAME} characters; put addresses into 'ip'"
        )
    if _is_address(lower):
        raise ValueError(f"{option}: '{name}' is an address; put it into 'ip'")
    return lower


def check_address(address: str, option: str = "ip") -> str:
    """The IPv4 or IPv6 address in its canonical form; ValueError for anything else."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        raise ValueError(
            f"{option}: '{address}' is not an address: expected IPv4 or IPv6 without prefix "
            "length; put names into 'dns'"
        ) from None


def check_common_name(name: str, option: str = "common_name") -> str:
    """The name itself; ValueError if X.520 does not allow it or it cannot be printed."""
    if not 1 <= len(name) <= _MAX_COMMON_NAME or not name.isprintable() or name != name.strip():
        raise ValueError(
            f"{option}: '{name}': expected 1 to {_MAX_COMMON_NAME} printable characters without "
            "surrounding blanks"
        )
    return name


def check_trust_domain(name: str, option: str = "trust_domain") -> str:
    """The trust domain itself.

    Raises ValueError unless it is a fully qualified domain name in lower case: it becomes the URI
    name constraint of the CA, and RFC 5280, section 4.2.1.10 demands one there.
    """
    fault = (
        not _DNS_NAME.fullmatch(name)
        or len(name) > _MAX_DNS_NAME
        or "." not in name
        or _is_address(name)
    )
    if fault:
        raise ValueError(
            f"{option}: '{name}': expected a domain name in lower case with at least one dot, "
            "such as chain.example.org; it need not exist in DNS"
        )
    return name


def check_spiffe_id(text: str, option: str = "spiffe_id") -> SpiffeId:
    """The parts of a SPIFFE id; ValueError if it is none (SPIFFE-ID standard, section 2)."""
    scheme, separator, rest = text.partition("://")
    trust_domain, slash, path = rest.partition("/")
    segments = path.split("/")
    if scheme != "spiffe" or not separator or not slash or len(text) > _MAX_SPIFFE_ID:
        raise ValueError(
            f"{option}: '{text}': expected spiffe://<trust domain>/<path>, at most "
            f"{_MAX_SPIFFE_ID} characters"
        )
    check_trust_domain(trust_domain, option)
    for segment in segments:
        if segment in (".", "..") or not _PATH_SEGMENT.fullmatch(segment):
            raise ValueError(
                f"{option}: '{text}': '{segment}' cannot be a part of the path: expected letters, "
                "digits, '.', '_' and '-', and neither '.' nor '..' alone"
            )
    return SpiffeId(trust_domain, "/" + path)


def node_spiffe_id(trust_domain: str, chain_id: str, name: str) -> str:
    """spiffe://<trust domain>/chain/<chain id>/node/<name>; ValueError if a part is unfit."""
    for option, part in (("chain_id", chain_id), ("name", name)):
        if not _PATH_SEGMENT.fullmatch(part) or part in (".", ".."):
            raise ValueError(
                f"{option}: '{part}' cannot be part of a SPIFFE id: expected letters, digits, "
                "'.', '_' and '-'"
            )
    check_trust_domain(trust_domain)
    return str(check_spiffe_id(f"spiffe://{trust_domain}/chain/{chain_id}/node/{name}"))


@dataclass(frozen=True)
class Names:
    """The subject alternative names of an identity, each kind sorted and without duplicates.

    other: names of kinds Holdfast never issues (mail addresses and so on), as text; their presence
    makes an identity differ from every wanted one.
    """

    dns: tuple[str, ...] = ()
    ip: tuple[str, ...] = ()
    uri: tuple[str, ...] = ()
    other: tuple[str, ...] = ()

    @classmethod
    def wanted(cls, dns: Iterable[str], ip: Iterable[str], spiffe_id: str | None) -> Names:
        """From module options; ValueError names the option and the value that is unfit."""
        names = cls(
            dns=_sorted(check_dns_name(name) for name in dns),
            ip=_sorted(check_address(address) for address in ip),
            uri=(str(check_spiffe_id(spiffe_id)),) if spiffe_id else (),
        )
        if not names:
            raise ValueError(
                "dns, ip, spiffe_id: all are empty: an identity needs at least one name"
            )
        return names

    @classmethod
    def found(
        cls, dns: Iterable[str], ip: Iterable[str], uri: Iterable[str], other: Iterable[str]
    ) -> Names:
        """From a certificate or a request, as it stands there."""
        return cls(_sorted(name.lower() for name in dns), _sorted(ip), _sorted(uri), _sorted(other))

    def __bool__(self) -> bool:
        return bool(self.dns or self.ip or self.uri or self.other)

    def beyond(self, allowed: Names) -> list[str]:
        """The names that are not among the allowed ones, as DNS:…, IP:…, URI:…."""
        return [name for name in self.listed() if name not in allowed.listed()]

    def listed(self) -> list[str]:
        """All names in the form OpenSSL prints them."""
        kinds = (("DNS", self.dns), ("IP", self.ip), ("URI", self.uri), ("other", self.other))
        return [f"{kind}:{name}" for kind, names in kinds for name in names]


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
