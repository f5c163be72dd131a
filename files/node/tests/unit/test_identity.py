# SPDX-License-Identifier: Apache-2.0
"""The check that a timer runs: how an identity stands, as text, as metrics and as exit code."""

import json
import math
from datetime import timedelta

import pytest
from click.testing import CliRunner
from net_support import DOMAIN, Pki
from prometheus_client.parser import text_string_to_metric_families

from holdfast_node.cli.identity import command
from holdfast_node.config import Tls
from holdfast_node.errors import ConfigError
from holdfast_node.identity import assess

HOUR = 3600.0


@pytest.fixture
def pki(tmp_path):
    return Pki(tmp_path / "pki")


def tls_of(pki, folder):
    return Tls(
        certificate=folder / "chain.pem",
        key=folder / "key.pem",
        ca=pki.folder / "ca.pem",
        trust_domain=DOMAIN,
        crl=pki.crl,
    )


@pytest.mark.parametrize(
    ("hours", "state"),
    [(-2, "not_yet_valid"), (0, "valid"), (7, "valid"), (8, "expiring"), (10, "expired")],
)
def test_the_state_follows_the_clock(pki, hours, state):
    """Valid for ten hours, of which one has passed."""
    folder, leaf = pki.issue("v1", lifetime=timedelta(hours=9))
    now = leaf.not_valid_before_utc.timestamp() + HOUR + hours * HOUR
    standing = assess(tls_of(pki, folder), "v1", now)
    assert standing.state == state
    assert bool(standing.warnings) == (state != "valid")
    assert all(f"{leaf.serial_number:x} of v1 is {state}" in text for text in standing.warnings)


def test_a_revoked_certificate_and_an_old_list_are_told(pki):
    folder, leaf = pki.issue("v1")
    now = leaf.not_valid_before_utc.timestamp() + HOUR
    pki.revoke(leaf, left=timedelta(hours=2))
    assert assess(tls_of(pki, folder), "v1", now).state == "revoked"
    pki.revoke(left=timedelta(days=1))  # of two; the certificate ends in an hour
    fresh = assess(tls_of(pki, folder), "v1", now)
    assert (fresh.state, fresh.crl_stale, fresh.crl_expiring) == ("valid", False, False)
    assert not assess(tls_of(pki, folder), "v1", now + 14 * HOUR).crl_expiring
    ending = assess(tls_of(pki, folder), "v1", now + 15 * HOUR)
    assert (ending.crl_stale, ending.crl_expiring) == (False, True)
    assert "ends soon: renew it (playbook rotate_certs)" in ending.warnings[-1]
    stale = assess(tls_of(pki, folder), "v1", fresh.crl_next_update + 1)
    assert stale.crl_stale
    assert "out of date: renew it (playbook rotate_certs)" in stale.warnings[-1]


def test_the_end_of_the_authority_is_told_while_it_can_still_sign(pki):
    """Intermediate and root end nine days from now, the certificate lives for two."""
    folder, leaf = pki.issue("v1", lifetime=timedelta(hours=47))
    tls, begin = tls_of(pki, folder), leaf.not_valid_before_utc.timestamp()
    standing = assess(tls, "v1", begin + HOUR)
    ends = standing.issuer_not_after
    assert ends == pytest.approx(begin + 9 * 24 * HOUR + HOUR, abs=60)
    assert not standing.issuer_ending
    assert not assess(tls, "v1", ends - 97 * HOUR).issuer_ending
    ending = assess(tls, "v1", ends - 95 * HOUR)
    assert "ends in 4 days" in ending.warnings[-1]
    assert "playbook rotate_ca" in ending.warnings[-1]
    # One that is trusted and not behind the certificate is another matter.
    other = Pki(pki.folder.parent / "other")
    both = (pki.folder / "ca.pem").read_text() + (other.folder / "ca.pem").read_text()
    (pki.folder / "ca.pem").write_text(both)
    assert assess(tls, "v1", begin + HOUR).issuer_not_after == ends


@pytest.mark.parametrize("file", ["chain.pem", "ca.pem"])
@pytest.mark.parametrize("content", [None, "rubbish"])
def test_what_cannot_be_read_is_named(pki, file, content):
    folder, _ = pki.issue("v1")
    path = (folder if file == "chain.pem" else pki.folder) / file
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ConfigError, match=rf"^tls\.c\w+ = .*{file}"):
        assess(tls_of(pki, folder), "v1", 0.0)


@pytest.fixture
def config(pki, tmp_path):
    folder, _ = pki.issue("v1")
    path = tmp_path / "config.toml"
    tls = tls_of(pki, folder)
    lines = ['chain_id = "demo"', 'name = "v1"', 'data_dir = "/data"', 'genesis = "/genesis"']
    lines += ['validator_key = "credential:none"', "[tls]", f'trust_domain = "{DOMAIN}"']
    lines += [f'{key} = "{getattr(tls, key)}"' for key in ("certificate", "key", "ca", "crl")]
    path.write_text("\n".join(lines) + "\n")
    return path


def samples(path):
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
        if sample.labels == {"node": "v1"}
    }


def test_the_command_prints_and_writes_metrics(config, tmp_path, pki):
    """It needs no key and no genesis; the file appears as a whole."""
    textfile = tmp_path / "metrics" / "v1.prom"
    textfile.parent.mkdir()
    arguments = ["check", "--config", str(config), "--textfile", str(textfile)]
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 0
    shown = json.loads(done.output)
    assert (shown["name"], shown["state"], shown["crl_next_update"]) == ("v1", "valid", None)
    now = samples(textfile)
    assert now["holdfast_identity_expiry_timestamp_seconds"] == shown["not_after"]
    assert now["holdfast_identity_issuer_expiry_timestamp_seconds"] == shown["issuer_not_after"]
    assert now["holdfast_identity_revoked"] == 0
    assert math.isnan(now["holdfast_identity_crl_next_update_timestamp_seconds"])
    assert list(textfile.parent.iterdir()) == [textfile]
    pki.revoke(pki.issue("v1")[1])
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == 1
    assert "is revoked" in str(done.exception)
    assert samples(textfile)["holdfast_identity_revoked"] == 1


def test_a_textfile_that_cannot_be_written_is_named(config):
    arguments = ["check", "--config", str(config), "--textfile", "/nowhere/v1.prom"]
    done = CliRunner().invoke(command, arguments)
    assert isinstance(done.exception, ConfigError)
    assert "--textfile = /nowhere/v1.prom: No such file" in str(done.exception)
