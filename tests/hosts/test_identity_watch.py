# SPDX-License-Identifier: GPL-3.0-or-later
"""Every hour somebody looks at the identity of a node; `host` comes from testinfra's --hosts.

That the timer fires under systemd, and what it leaves behind then, is in molecule/network. crond's
hour is not waited for: what it would call is called here.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from services import eventually, has_systemd, nodes

Host = Any  # testinfra's Host has no types worth the name
PYTHON = "/opt/holdfast/current/bin/python"
PLACE = "/run/identity-watch"
# The certificate in use, but one that ends in an hour and is twenty days old.
AGED = f"""\
import datetime, sys
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
chain, key = (open(sys.argv[1] + name, "rb").read() for name in ("chain.pem", "key.pem"))
old = x509.load_pem_x509_certificates(chain)[0]
key = serialization.load_pem_private_key(key, None)
now = datetime.datetime.now(datetime.timezone.utc)
builder = x509.CertificateBuilder(old.subject, old.subject, old.public_key(), old.serial_number)
builder = builder.not_valid_before(now - datetime.timedelta(days=20))
builder = builder.not_valid_after(now + datetime.timedelta(hours=1))
signed = builder.sign(key, hashes.SHA384())
open("{PLACE}/aged.pem", "wb").write(signed.public_bytes(serialization.Encoding.PEM))
"""


@pytest.fixture
def name(host: Host) -> str:
    """The node's name; where there are several, the first of them."""
    return nodes(host)[0]


@pytest.fixture
def script(host: Host, name: str) -> str:
    """What crond runs."""
    if has_systemd(host):
        pytest.skip("not run: systemd has a timer, which fires in molecule/network")
    return f"/etc/periodic/hourly/holdfast-identity-{name}"


def test_it_is_looked_at_every_hour(host: Host, name: str) -> None:
    """Now, and after a reboot."""
    if has_systemd(host):
        timer = f"holdfast-identity@{name}.timer"
        assert host.service(timer).is_running
        assert host.service(timer).is_enabled
        assert "OnCalendar=hourly" in host.check_output(f"systemctl cat {timer}")
        return
    assert host.run("rc-service crond status").rc == 0
    assert "crond" in host.check_output("rc-update show default")
    crontab = host.file("/etc/crontabs/root").content_string
    assert re.search(r"^\d+\s+\*\s+\*\s+\*\s+\*\s+run-parts /etc/periodic/hourly$", crontab, re.M)
    called = host.check_output("run-parts --test /etc/periodic/hourly").split()
    assert f"/etc/periodic/hourly/holdfast-identity-{name}" in called


def test_nothing_is_said_of_a_good_identity(host: Host, name: str) -> None:
    """What the timer starts ends well."""
    if has_systemd(host):
        host.check_output(f"systemctl start holdfast-identity@{name}.service")
        return
    done = host.run(f"/etc/periodic/hourly/holdfast-identity-{name}")
    assert (done.rc, done.stdout, done.stderr) == (0, "", "")


def test_the_log_is_told_of_one_near_its_end(host: Host, name: str, script: str) -> None:
    """By the very script, with the certificate of another configuration."""
    configuration, tls = f"/etc/holdfast/{name}/config.toml", f"/etc/holdfast/{name}/tls/current/"
    host.check_output(f"mkdir -p {PLACE} && rm -f {PLACE}/*")
    host.check_output("%s -c %s %s", PYTHON, AGED, tls)
    text = host.file(configuration).content_string
    assert f'"{tls}chain.pem"' in text
    host.check_output(
        f"sed 's#{tls}chain.pem#{PLACE}/aged.pem#' {configuration} >{PLACE}/config.toml"
    )
    host.check_output(f"sed 's#{configuration}#{PLACE}/config.toml#' {script} >{PLACE}/watch")
    host.check_output(f"sh {PLACE}/watch")
    told = f"daemon.warn holdfast-identity: {name}: "
    said = eventually(
        lambda: host.run(f"grep -F '{told}' /var/log/messages").stdout, 10, "a line in the log"
    )
    assert "is expiring (0.04 days left)" in said
    host.check_output(f"rm -r {PLACE}")
