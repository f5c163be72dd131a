# SPDX-License-Identifier: Apache-2.0
"""The configuration: every fault named at once, with key, value and way out; no secret shown."""

import pytest
from config_support import edit, the_fault
from hypothesis import given
from hypothesis import strategies as st

from holdfast_node import devnet_files
from holdfast_node.config import Config, Consensus, Log, MempoolLimits, P2p, examine, load
from holdfast_node.config_reader import Endpoint, parse_endpoint, read_section
from holdfast_node.keys import KeySource, new_key


def test_a_complete_configuration_loads(v1):
    config = load(v1.config)
    assert (config.name, config.role) == ("v1", "validator")
    assert config.p2p.listen == Endpoint("127.0.0.1", 26_600)
    assert [(p.name, p.role, p.sync_address.port) for p in config.peers] == [
        ("v2", "validator", 26_611),
        ("v3", "validator", 26_621),
        ("v4", "validator", 26_631),
    ]
    assert config.spiffe_id == "spiffe://devnet.localhost/chain/devnet/node/v1"
    assert config.read_validator_key().public_key.hex() == (
        config.read_genesis().validators[0].public_key
    )


def test_what_is_left_out_has_its_documented_default(v1):
    config = load(v1.config)
    assert config.consensus == Consensus(100, 5_000, 2_000, 30_000, 1_048_576, 2_000)
    assert config.mempool == MempoolLimits(67_108_864, 50_000, 2_000)
    assert config.log == Log("info", "json")
    assert P2p() == P2p(Endpoint("0.0.0.0", 30_303), Endpoint("0.0.0.0", 30_304))


def test_every_fault_of_the_text_is_found_at_once(tmp_path):
    """One line each, and the files the text names are left alone until it is right."""
    path = tmp_path / "config.toml"
    path.write_text(
        """
        chain_id = "Demo Chain"
        nam = "v1"
        data_dir = "var/lib"
        genesis = 3
        [p2p]
        listen = "0.0.0.0"
        [tls]
        certificate = "/c"
        key = "/k"
        ca = "/a"
        trust_domain = "demo.example"
        [consensus]
        view_timeout_ms = true
        max_block_bytes = 10
        [log]
        level = "loud"
        [[peers]]
        name = "v2"
        address = "v2:0"
        sync_address = "v2:30304"
        role = "king"
        """
    )
    config, faults, warnings = examine(path)
    assert (config, warnings) == (None, [])
    label = "a host label of 1 to 63 lower-case letters, digits and '-'"
    endpoint = '"host:port", such as "10.0.0.1:30303" or "[fd00::1]:30303"'
    number = "expected a whole number"
    lower = "1 to 48 lower-case letters, digits and '-'"
    assert sorted(faults) == sorted(
        [
            f'chain_id = "Demo Chain": expected {lower}; correct it',
            f"name is missing: expected {label}; add it",
            "nam is not a known key: did you mean name?",
            'data_dir = "var/lib": expected an absolute path; correct it',
            "genesis = 3: expected an absolute path; correct it",
            f'p2p.listen = "0.0.0.0": expected {endpoint}; correct it',
            f"consensus.view_timeout_ms = true: {number} from 1 to 3600000; correct it",
            f"consensus.max_block_bytes = 10: {number} from 65536 to 8388608; correct it",
            'log.level = "loud": expected one of "debug", "info", "warning", "error"; correct it',
            f'peers[0].address = "v2:0": expected {endpoint}; correct it',
            'peers[0].role = "king": expected one of "validator", "observer"; correct it',
        ]
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("chain_id = ", "expected TOML"),
        ("peers = 3", "peers = 3: expected tables [[peers]]"),
        ("peers = [1]", "peers = [1]: expected tables [[peers]]"),
        ("tls = 'x'", 'tls = "x": expected a table [tls]'),
        (
            "",
            "tls is missing: expected a table with certificate, key, ca, trust_domain, crl; add it",
        ),
        ("[log]\nshape = 1", "log.shape is not a known key: expected level, format"),
        ("[[peers]]\n" * 1_025, "peers: 1025 tables: expected at most 1024"),
        ("x = " + "[" * 5_000, "expected TOML"),
        ("\xff", "TOML"),
    ],
)
def test_text_of_the_wrong_shape_is_explained(tmp_path, text, expected):
    path = tmp_path / "config.toml"
    path.write_bytes(text.encode("latin-1"))
    _, faults, _ = examine(path)
    assert any(expected in fault for fault in faults), faults


def test_a_file_that_cannot_be_a_configuration_is_not_read(tmp_path):
    """A device, a folder, something huge: an answer, not memory."""
    big = tmp_path / "big.toml"
    with big.open("wb") as file:
        file.truncate(1 << 30)
    for path, expected in [
        (big, "more than 1048576 bytes"),
        (tmp_path, "Is a directory"),
        (tmp_path / "none.toml", "No such file"),
    ]:
        _, faults, _ = examine(path)
        assert len(faults) == 1
        assert expected in faults[0]


def test_a_key_pasted_into_the_configuration_is_not_shown(v1, layout):
    """Neither in place of a path nor under a key we do not know."""
    secret = "c0ffee" * 10
    edit(v1, "^validator_key = .*", f'validator_key = "{secret}"\nprivate_key = "{secret}"')
    edit(v1, "^key = .*", f'key = "{secret}"')
    _, faults, _ = examine(v1.config)
    assert len(faults) == 3
    assert secret not in "\n".join(faults)


def test_the_genesis_must_be_of_this_chain(v1):
    edit(v1, '^chain_id = "devnet"', 'chain_id = "other"')
    _, faults, _ = examine(v1.config)
    assert any(
        fault.startswith('chain_id = "other": expected "devnet" as in ') for fault in faults
    ), faults


def test_an_unreadable_genesis_is_named(v1, layout):
    (layout.folder / "genesis.json").unlink()
    assert the_fault(v1) == (
        f"genesis = {layout.folder}/genesis.json: No such file or directory: expected a genesis "
        "file that this user may read"
    )


def test_every_validator_must_be_a_peer(v1):
    edit(v1, r'\[\[peers\]\]\nname = "v4"\n(.*\n){3}', "")
    assert the_fault(v1) == (
        "peers: validator v4 of the genesis is missing: expected every validator; add it"
    )


def test_a_peer_has_the_role_that_the_genesis_gives_it(v1):
    edit(v1, '(name = "v3"\n.*\n.*\n)role = "validator"', r'\1role = "observer"')
    assert the_fault(v1) == (
        'peers[1].role = "observer": expected "validator", for the genesis has validator v3; '
        "correct the role or the name"
    )


def test_a_peer_may_become_a_validator(v1):
    """Who is no validator of the genesis is one when the others have agreed on it."""
    peer = '\n[[peers]]\nname = "o1"\naddress = "o1:1"\nsync_address = "o1:2"\nrole = "validator"\n'
    v1.config.write_text(v1.config.read_text() + peer)
    assert load(v1.config).peers[3].role == "validator"


def test_names_and_addresses_of_peers_are_their_own(v1):
    edit(v1, '^name = "v3"\naddress = .*', 'name = "v2"\naddress = "127.0.0.1:26610"')
    _, faults, _ = examine(v1.config)
    taken = "127.0.0.1:26610"
    own = "expected a value of its own, but"
    assert faults == [
        f'peers[1].name = "v2": {own} peers[0].name has it too; correct one of them',
        f'peers[1].address = "{taken}": {own} peers[0].address has it too; correct one of them',
        "peers: validator v3 of the genesis is missing: expected every validator; add it",
    ]


def test_a_node_is_not_its_own_peer(v1):
    peer = '\n[[peers]]\nname = "v1"\naddress = "a:1"\nsync_address = "a:2"\nrole = "validator"\n'
    v1.config.write_text(v1.config.read_text() + peer)
    assert the_fault(v1) == ('peers[3].name = "v1": expected other members only; remove this node')


def test_listeners_do_not_share_a_port(v1):
    edit(v1, '^listen = "127.0.0.1:26602"', 'listen = "0.0.0.0:26600"')
    assert the_fault(v1) == (
        'api.listen = "0.0.0.0:26600": expected another port than p2p.listen; give each listener '
        "its own"
    )


def test_the_pace_of_consensus_must_make_sense(v1):
    v1.config.write_text(v1.config.read_text() + "\n[consensus]\nview_timeout_ms = 40000\n")
    assert the_fault(v1) == (
        "consensus.view_timeout_ms = 40000: expected at most consensus.view_timeout_max_ms, which "
        "is 30000; lower the first or raise the second"
    )


def test_a_validator_needs_its_key(v1):
    edit(v1, "^validator_key = .*\n", "")
    assert "validator_key is missing: expected the key of v1" in the_fault(v1)


def test_another_validators_key_is_not_taken(v1, layout):
    other = layout.members[1].folder / "validator.key"
    edit(v1, "^validator_key = .*", f'validator_key = "{other}"')
    fault = the_fault(v1)
    wanted = load(layout.members[1].config).read_genesis().validators[0].public_key
    assert fault.startswith(f'validator_key = "{other}": its public key is ')
    assert f"expected {wanted}, the key of v1 in the genesis" in fault


def test_an_observer_has_no_key(v1, layout):
    """With one it is a candidate: certificate, peers and the rest are right for both."""
    member = devnet_files.Member("o1", layout.folder / "o1", 26_700)
    (member.folder / "tls").mkdir(parents=True)
    (member.folder / "data").mkdir()
    everyone = (*layout.members, member)
    devnet_files._write_identities(everyone)
    member.config.write_text(
        devnet_files.render_config(member, everyone, layout.folder / "genesis.json")
    )
    new_key(member.folder / "validator.key")
    assert load(member.config).role == "validator"
    edit(member, "^validator_key = .*\n", "")
    config = load(member.config)
    assert config.role == "observer"
    assert config.read_validator_key() is None


def test_a_key_from_systemd_is_found_in_the_folder_of_credentials(v1, monkeypatch, tmp_path):
    """In $CREDENTIALS_DIRECTORY, or where a checker says it is."""
    edit(v1, "^validator_key = .*", 'validator_key = "credential:validator.key"')
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert "$CREDENTIALS_DIRECTORY is not set" in the_fault(v1)
    assert load(v1.config, v1.folder).validator_key == KeySource(credential="validator.key")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(v1.folder))
    assert load(v1.config).read_validator_key() is not None
    assert "No such file" in examine(v1.config, tmp_path)[1][0]


def test_the_data_folder_must_be_one_to_write_to(v1):
    edit(v1, "^data_dir = .*", 'data_dir = "/dev/null"')
    assert 'data_dir = "/dev/null": not a folder' in the_fault(v1)
    edit(v1, "^data_dir = .*", 'data_dir = "/nowhere/data"')
    assert 'data_dir = "/nowhere/data": ' in the_fault(v1)
    edit(v1, "^data_dir = .*", f'data_dir = "{v1.folder}/made-later"')
    assert load(v1.config).data_dir == v1.folder / "made-later"


@given(
    host=st.from_regex(r"[a-z][a-z0-9-]{0,20}[a-z0-9](\.[a-z]{1,9}){0,3}", fullmatch=True)
    | st.ip_addresses(v=4).map(str)
    | st.ip_addresses(v=6).map(str),
    port=st.integers(1, 65_535),
)
def test_endpoints_are_read_as_they_are_written(host, port):
    assert parse_endpoint(str(Endpoint(host, port))) == Endpoint(host, port)


@pytest.mark.parametrize(
    "text",
    [
        "", "host", ":1", "host:", "host:0", "host:65536", "host:+1", "host:٣", "a b:1", "-a:1",
        "1.2.3:4", "1.2.3.256:4", "[::1", "::1:80", "[::g]:1", "[]:1", "[127.0.0.1]:1",
        "user@host:1", "http://host:1", "a" * 64 + ":1", ".".join(["a" * 60] * 5) + ":1", 7, None,
    ],
)  # fmt: skip
def test_endpoints_of_another_form_are_refused(text):
    with pytest.raises(ValueError, match=r"."):
        parse_endpoint(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "address", "listen", "p2p", "tls", "key", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(
        st.sampled_from(["name", "chain_id", "p2p", "tls", "peers", "validator_key", "log", "y"]),
        json_values,
    )
)
def test_whatever_the_text_says_the_answer_is_a_list_of_faults(raw):
    """No value, however odd, escapes as another exception."""
    faults: list[str] = []
    assert read_section(Config, raw, faults) is None
    assert faults
    assert all("\n" not in fault for fault in faults)
