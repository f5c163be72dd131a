# SPDX-License-Identifier: Apache-2.0
"""The command line: what it prints, its exit codes, and that no error ends in a traceback."""

import json
import stat
import subprocess
import sys

import pytest

from holdfast_node import cli, devnet_files
from holdfast_node.chain.crypto import account_of, format_address
from holdfast_node.cli.output import table
from holdfast_node.cli.status import render
from holdfast_node.client import Client, Outcome, UnreachableError
from holdfast_node.errors import RefusedError
from holdfast_node.keys import load_key, new_key

PUBLIC_KEYS = [bytes([i] * 32).hex() for i in (1, 2)]


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs a command line; returns exit code, standard output and standard error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["holdfast-node", *map(str, arguments)])
        with pytest.raises(SystemExit) as raised:
            cli.main()
        out, err = capsys.readouterr()
        return raised.value.code or 0, out, err

    return call


@pytest.fixture
def address(tmp_path):
    return format_address(account_of(new_key(tmp_path / "someone.key").public_key))


def test_the_version_is_the_packages(run):
    code, out, _ = run("--version")
    assert code == 0
    assert out.startswith("holdfast-node 0.")


def test_every_command_is_listed_and_explains_itself(run):
    code, out, _ = run("--help")
    assert code == 0
    for name in ("config", "devnet", "genesis", "identity", "keys", "run", "status", "tx"):
        assert f"\n  {name}" in out
        code, help_text, _ = run(name, "--help")
        assert code == 0
        assert help_text.startswith(f"Usage: holdfast-node {name}")


@pytest.mark.parametrize("arguments", [["nonsense"], ["keys", "new"], ["tx", "transfer"], ["run"]])
def test_wrong_usage_ends_with_code_2(run, arguments):
    code, _, err = run(*arguments)
    assert code == 2
    assert "Usage:" in err


def test_it_runs_as_a_module_and_imports_little_to_begin_with():
    """Nothing of the node is imported before a command asks for it."""
    program = (
        "import sys, holdfast_node.cli\n"
        "heavy = {'cryptography', 'nacl', 'msgspec', 'uvloop', 'starlette', 'structlog'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"[]\n"
    done = subprocess.run(
        [sys.executable, "-m", "holdfast_node", "config", "check", "/nowhere"],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"/nowhere: No such file or directory")


def test_keys_are_made_once_and_shown(run, tmp_path):
    path = tmp_path / "a.key"
    code, out, _ = run("keys", "new", "--out", path)
    made = json.loads(out)
    assert code == 0
    assert set(made) == {"public_key", "address"}
    assert load_key(path).public_key.hex() == made["public_key"]
    assert load_key(path).seed.hex() not in out
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(run("keys", "show", path)[1]) == made
    code, out, err = run("keys", "new", "--out", path)
    assert (code, out) == (2, "")
    assert "never overwritten" in err


def test_a_genesis_is_made_and_shown(run, tmp_path, address):
    path = tmp_path / "genesis.json"
    arguments = ["genesis", "create", "--chain-id", "demo", "--time-ms", 5, "--out", path]
    arguments += ["--validator", f"v2={PUBLIC_KEYS[0]}", "--validator", f"v1={PUBLIC_KEYS[1]}"]
    arguments += ["--account", f"{address}=100"]
    code, out, _ = run(*arguments)
    made = json.loads(out)
    assert code == 0
    assert (made["chain_id"], made["time_ms"], made["accounts"]) == ("demo", 5, {address: 100})
    assert [v["name"] for v in made["validators"]] == ["v2", "v1"]
    assert len(bytes.fromhex(made["hash"])) == 32
    assert json.loads(run("genesis", "show", path)[1]) == made
    before = path.read_bytes()
    code, _, err = run(*arguments)
    assert code == 2
    assert "never overwritten" in err
    assert path.read_bytes() == before


def test_every_fault_of_a_genesis_is_told_and_nothing_written(run, tmp_path, address):
    path = tmp_path / "genesis.json"
    begin = ["genesis", "create", "--chain-id", "Demo", "--out", path]
    code, _, err = run(
        *begin, "--validator", "v1", "--account", f"{address}=-5",
        "--account", f"{address}=5", "--account", f"{address}=6",
    )  # fmt: skip
    assert code == 2
    assert err.splitlines() == [
        "--validator = 'v1': expected NAME=PUBLIC_KEY; correct it",
        f"--account = '{address}=-5': expected an amount in digits; correct it",
        f"--account = '{address}=6': {address} is given twice; give it once",
    ]
    code, _, err = run(*begin, "--validator", "v1=00", "--account", "hfX=1")
    assert code == 2
    assert "chain_id = 'Demo'" in err
    assert "validators[0].public_key = '00'" in err
    assert "'hfX' is not an address" in err
    assert not path.exists()


@pytest.mark.parametrize("amount", ["", "x", "1.5", "٣", "9" * 20, "9" * 19])
def test_amounts_are_whole_and_bounded(run, tmp_path, address, amount):
    code, _, err = run(
        "genesis", "create", "--chain-id", "demo", "--validator", f"v1={PUBLIC_KEYS[0]}",
        "--account", f"{address}={amount}", "--out", tmp_path / "g",
    )  # fmt: skip
    assert code == 2
    assert "Traceback" not in err
    assert not (tmp_path / "g").exists()


def test_config_check_says_yes_or_names_each_fault(run, tmp_path):
    layout = devnet_files.prepare(tmp_path, 4, 26_600)
    config = layout.members[0].config
    code, out, err = run("config", "check", config)
    assert (code, out, err) == (0, f"{config}: validator v1 of chain devnet: no faults\n", "")
    config.write_text(config.read_text().replace("[p2p]", "[ptp]").replace('name = "v1"', ""))
    code, out, err = run("config", "check", config)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 2
    assert "ptp is not a known key: did you mean p2p?" in err.splitlines()
    credential = layout.members[1].config
    key = layout.members[1].folder / "validator.key"
    credential.write_text(credential.read_text().replace(str(key), "credential:validator.key"))
    assert run("config", "check", credential)[0] == 2
    assert run("config", "check", credential, "--credentials", key.parent)[0] == 0


def test_run_refuses_a_bad_configuration_before_anything_else(run, tmp_path):
    (tmp_path / "config.toml").write_text("")
    code, _, err = run("run", "--config", tmp_path / "config.toml")
    assert code == 2
    assert "chain_id is missing" in err


def test_status_without_a_node_says_what_to_do(run):
    code, _, err = run("status", "--url", "http://127.0.0.1:9")
    assert code == 1
    assert "expected a running node" in err
    code, _, err = run("status", "--url", "nonsense")
    assert code == 2


STATUS = {
    "chain_id": "demo",
    "name": "v1",
    "role": "validator",
    "version": "0.1.0",
    "height": 12,
    "block_hash": "ab",
    "state_root": "cd",
    "view": 3,
    "leader": "v4",
    "ready": False,
    "reason": "12 blocks behind",
    "peers": [
        {"name": "v2", "role": "validator", "connected": True, "height": 12, "latency_ms": 0.51},
        {"name": "o1", "role": "observer", "connected": False, "last_error": "refused"},
    ],
    "validators": 4,
    "tolerated_faults": 1,
    "quorum": 3,
    "mempool": {"transactions": 2, "bytes": 300},
    "genesis_hash": "ef",
    "uptime_s": 3_725.4,
    "commit_latency_ms": {"p50": 12.34, "p99": None},
}


def test_status_is_a_table_for_people_and_json_for_programs(run, monkeypatch):
    monkeypatch.setattr(Client, "status", lambda _self: STATUS)
    code, out, _ = run("status")
    assert code == 0
    assert out == render(STATUS) + "\n"
    assert json.loads(run("status", "--json")[1]) == STATUS


def test_the_table_shows_what_there_is():
    lines = render(STATUS).splitlines()
    assert "ready       no: 12 blocks behind" in lines
    assert "view        3, led by v4" in lines
    assert "validators  4, of which 3 decide and 1 may fail" in lines
    assert "commit      p50 12.3 ms, p99 -" in lines
    assert "up          1:02:05" in lines
    assert lines[-3:] == [
        "PEER  ROLE       LINK       HEIGHT  ROUND TRIP  LAST ERROR",
        "v2    validator  connected  12      0.5 ms      -",
        "o1    observer   away       -       -           refused",
    ]


def test_the_table_bears_a_node_that_says_less():
    assert "height      -" in render({}).splitlines()


def test_columns_are_as_wide_as_their_widest_cell():
    assert table(["A", "BBB"], [["aaa", None], ["", 1]]) == "A    BBB\naaa  -\n     1"


@pytest.fixture
def executed(monkeypatch):
    """Replaces the network: what was to be executed, and what comes of it."""
    calls = []
    outcome = Outcome("ab", "committed", 7, 12.5)

    def execute(client, key, actions, **options):
        calls.append((client.url, key.public_key, actions, options))
        if isinstance(calls[0], Exception):
            raise calls[0]
        return calls[0] if isinstance(calls[0], Outcome) else outcome

    monkeypatch.setattr(Client, "execute", execute)
    return calls


def test_a_transfer_prints_id_height_and_latency(run, tmp_path, address, executed):
    key = new_key(tmp_path / "a.key")
    code, out, _ = run(
        "tx", "transfer", "--url", "http://h:1", "--key", tmp_path / "a.key", "--to", address,
        "--amount", 5, "--wait",
    )  # fmt: skip
    assert code == 0
    assert json.loads(out) == {"id": "ab", "status": "committed", "height": 7, "latency_ms": 12.5}
    ((url, public_key, (action,), options),) = executed
    assert (url, public_key, action.amount) == ("http://h:1", key.public_key, 5)
    assert format_address(action.to) == address
    assert options == {"wait_s": 30.0, "chain_id": None, "nonce": None}


def test_a_put_sends_text_and_does_not_wait_unless_asked(run, tmp_path, executed):
    new_key(tmp_path / "a.key")
    begin = ["tx", "put", "--key", tmp_path / "a.key"]
    code, _, _ = run(*begin, "--name", "greeting", "--value", "häl", "--nonce", 4)
    assert code == 0
    ((_, _, (action,), options),) = executed
    assert (action.key, action.value) == ("greeting", "häl".encode())
    assert options == {"wait_s": None, "chain_id": None, "nonce": 4}
    code, _, err = run(*begin, "--name", "n" * 257, "--value", "v" * 40_000)
    assert code == 2
    assert len(err.splitlines()) == 2


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (RefusedError("nonce_used", "nonce 3 is used"), "refused (nonce_used): nonce 3 is used"),
        (UnreachableError("nobody there"), "nobody there"),
        (Outcome("ab", "failed", 7, 1.0, "insufficient_funds"), ""),
    ],
)
def test_a_transaction_without_effect_ends_with_code_1(run, tmp_path, executed, result, said):
    executed.append(result)
    new_key(tmp_path / "a.key")
    code, out, err = run("tx", "put", "--key", tmp_path / "a.key", "--name", "a", "--value", "b")
    assert code == 1
    assert said in err
    assert ("insufficient_funds" in out) is isinstance(result, Outcome)


def test_a_transfer_needs_a_key_an_address_and_an_amount(run, tmp_path, address, executed):
    new_key(tmp_path / "a.key")
    transfer = ["tx", "transfer", "--amount", 5]
    wrong = address[:-1] + ("2" if address.endswith("1") else "1")
    code, _, err = run(*transfer, "--key", tmp_path / "a.key", "--to", wrong)
    assert code == 2
    assert "is not an address" in err
    code, _, err = run(*transfer, "--key", tmp_path / "none.key", "--to", address)
    assert code == 2
    assert "none.key: No such file" in err
    assert run("tx", "transfer", "--amount", 0)[0] == 2
    assert executed == []


def test_a_transactions_status_is_printed(run, monkeypatch):
    monkeypatch.setattr(Client, "transaction", lambda _self, given: {"id": given, "status": "x"})
    code, out, _ = run("tx", "status", "abcd")
    assert (code, json.loads(out)) == (0, {"id": "abcd", "status": "x"})
