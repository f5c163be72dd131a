# SPDX-License-Identifier: Apache-2.0
"""The node's configuration: what `config.toml` may say, and every default.

`load` finds all faults at once, those of the files that the configuration names included, so that
an operator repairs a configuration in one go.
"""

from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta

from holdfast_node.chain.crypto import PrivateKey
from holdfast_node.chain.genesis import Genesis
from holdfast_node.chain.names import CHAIN_ID, NODE_NAME, spiffe_id
from holdfast_node.chain.transaction import MAX_TRANSACTION_BYTES
from holdfast_node.config_check import examine_config, read_genesis
from holdfast_node.config_reader import Endpoint, Section, read_section, read_toml
from holdfast_node.errors import ConfigError
from holdfast_node.keys import KeySource, load_key

MAX_PEERS: Final = 1024

Role: TypeAlias = Literal["validator", "observer"]
Name: TypeAlias = Annotated[
    str,
    Meta(
        pattern=rf"\A{NODE_NAME.pattern}\Z",
        description="a host label of 1 to 63 lower-case letters, digits and '-'",
    ),
]
Milliseconds: TypeAlias = Annotated[int, Meta(ge=1, le=3_600_000)]


class P2p(Section, frozen=True):
    """Where other members reach this node: consensus and block catch-up."""

    listen: Endpoint = Endpoint("0.0.0.0", 30303)
    sync_listen: Endpoint = Endpoint("0.0.0.0", 30304)


class Api(Section, frozen=True):
    listen: Endpoint = Endpoint("127.0.0.1", 8545)


class Tls(Section, frozen=True):
    """PEM files. `certificate` is the leaf followed by its intermediates, `ca` the pinned roots.

    `crl` are the revocation lists of the authorities; while the file does not exist nothing is
    revoked.
    """

    certificate: Path
    key: Annotated[Path, Meta(extra={"secret": True})]
    ca: Path
    trust_domain: Annotated[
        str,
        Meta(
            pattern=r"\A[a-z0-9]([a-z0-9._-]{0,252}[a-z0-9])?\Z",
            description="a SPIFFE trust domain: lower-case letters, digits, '.', '-' and '_'",
        ),
    ]
    crl: Path | None = None


class Peer(Section, frozen=True):
    """Another member of the network."""

    name: Name
    address: Endpoint
    sync_address: Endpoint
    role: Role


class Consensus(Section, frozen=True):
    """Pace and size of the blocks that this node proposes.

    The genesis limits the size of what it accepts. `block_interval_ms` is the least time between
    two blocks, `empty_block_interval_ms` the time after which a block without transactions is made.
    A view that brings no block within `view_timeout_ms` is given up; the time doubles with each
    failed view up to `view_timeout_max_ms`.
    """

    block_interval_ms: Milliseconds = 100
    empty_block_interval_ms: Milliseconds = 5_000
    view_timeout_ms: Milliseconds = 2_000
    view_timeout_max_ms: Milliseconds = 30_000
    max_block_bytes: Annotated[int, Meta(ge=MAX_TRANSACTION_BYTES, le=8_388_608)] = 1_048_576
    max_block_transactions: Annotated[int, Meta(ge=1, le=100_000)] = 2_000


class Snapshots(Section, frozen=True):
    """What helps others, and this node itself, to catch up without all the blocks.

    The state after each block whose height is a multiple of `checkpoint_interval` is kept for peers
    (0: none). This node begins with such a snapshot of its peers when it is more than
    `fetch_threshold` blocks behind it, and has no blocks below it then (0: never).
    """

    checkpoint_interval: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 10_000
    fetch_threshold: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 1_000


class MempoolLimits(Section, frozen=True):
    max_bytes: Annotated[int, Meta(ge=MAX_TRANSACTION_BYTES, le=8_589_934_592)] = 67_108_864
    max_transactions: Annotated[int, Meta(ge=1, le=10_000_000)] = 50_000
    max_per_sender: Annotated[int, Meta(ge=1, le=1_000_000)] = 2_000


class Log(Section, frozen=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


class Config(Section, frozen=True):
    """A whole `config.toml`. Paths are absolute; `peers` are all members but this one."""

    chain_id: Annotated[
        str,
        Meta(
            pattern=rf"\A{CHAIN_ID.pattern}\Z",
            description="1 to 48 lower-case letters, digits and '-'",
        ),
    ]
    name: Name
    data_dir: Path
    genesis: Path
    tls: Tls
    validator_key: KeySource | None = None
    p2p: P2p = P2p()
    api: Api = Api()
    peers: Annotated[tuple[Peer, ...], Meta(max_length=MAX_PEERS)] = ()
    consensus: Consensus = Consensus()
    mempool: MempoolLimits = MempoolLimits()
    snapshots: Snapshots = Snapshots()
    log: Log = Log()

    @property
    def role(self) -> Role:
        """What `load` has checked against the genesis: only validators have a key."""
        return "observer" if self.validator_key is None else "validator"

    @property
    def spiffe_id(self) -> str:
        """The URI that this node's certificate must carry."""
        return spiffe_id(self.tls.trust_domain, self.chain_id, self.name)

    def read_genesis(self) -> Genesis:
        """Raises `ConfigError`."""
        return read_genesis(self.genesis)

    def read_validator_key(self) -> PrivateKey | None:
        """The key that signs votes, None on an observer. Raises `ConfigError`."""
        return None if self.validator_key is None else load_key(self.validator_key)


def read(path: Path) -> Config:
    """Read the text of `config.toml` only, not what it names. Raises `ConfigError`."""
    faults: list[str] = []
    raw = read_toml(path, faults)
    config = None if raw is None else read_section(Config, raw, faults)
    if config is None or faults:
        raise ConfigError(faults)
    return config


def examine(
    path: Path, credentials: Path | None = None
) -> tuple[Config | None, list[str], list[str]]:
    """Read the configuration and all that it names; returns it with its faults and warnings.

    `credentials` stands for `$CREDENTIALS_DIRECTORY` where the caller is not the service itself.
    It is None if its own text is at fault; the files it names are not looked at then.
    """
    try:
        config = read(path)
    except ConfigError as error:
        return None, error.faults, []
    faults: list[str] = []
    warnings: list[str] = []
    examine_config(config, credentials, faults, warnings)
    return config, faults, warnings


def load(path: Path, credentials: Path | None = None) -> Config:
    """Read `config.toml` at `path`.

    Raises `ConfigError` with every fault: `key = value: expected ...; way out`.
    """
    config, faults, _ = examine(path, credentials)
    if config is None or faults:
        raise ConfigError(faults)
    return config
