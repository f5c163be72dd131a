# SPDX-License-Identifier: Apache-2.0
"""A running node: makes the parts, wires them, and owns the task group they live in."""

import secrets
import time
from collections.abc import Iterator
from typing import Final

import anyio
import structlog
from anyio import to_thread

from holdfast_node import __version__
from holdfast_node.api.server import create_app, serve
from holdfast_node.chain.block import CertifiedBlock
from holdfast_node.chain.codec import decode, encode
from holdfast_node.chain.crypto import account_of
from holdfast_node.chain.transaction import Put, sign_transaction, transaction_id
from holdfast_node.config import Config
from holdfast_node.consensus import Evidence, Message, Replica, Timeouts
from holdfast_node.driver import Driver
from holdfast_node.evidence_log import EvidenceLog
from holdfast_node.ledger.checking import CheckedTransaction
from holdfast_node.ledger.ledger import Ledger
from holdfast_node.mempool import Mempool
from holdfast_node.net.keeper import Keeper
from holdfast_node.net.network import Network
from holdfast_node.net.settings import NetworkSettings, PeerSettings
from holdfast_node.net.sync import BlockSync, SyncServer
from holdfast_node.net.tls import Tls
from holdfast_node.net.wire import Consensus, Delivered, Hello, Status, Transactions
from holdfast_node.observe.metrics import Metrics, Snapshot
from holdfast_node.rejoin import Rejoin
from holdfast_node.service import NodeService
from holdfast_node.snapshot.assembly import Assembly
from holdfast_node.snapshots import Snapshots
from holdfast_node.storage.sqlite import SqliteStore
from holdfast_node.vote_log import VoteLog

CHECKPOINT_SECONDS: Final = 5.0
GOSSIP_TRANSACTIONS: Final = 500
GOSSIP_BYTES: Final = 1_048_576
# What a validator in doubt writes into its own name space, to see a block younger than its start.
MARK_KEY: Final = "validator/start"
MARK_VALIDITY_MS: Final = 60_000

log = structlog.get_logger()


class Node:
    """The parts of one node. Also the network's `Handler` and the driver's `Outside`."""

    def __init__(
        self,
        config: Config,
        store: SqliteStore,
        votes: VoteLog | None,
        evidence: EvidenceLog | None,
    ) -> None:
        self.config = config
        genesis = config.read_genesis()
        key = config.read_validator_key()
        self.metrics = Metrics(
            version=__version__, chain_id=config.chain_id, name=config.name, role=config.role
        )
        self.ledger = Ledger(store, genesis, lambda: time.time_ns() // 1_000_000)
        self.mempool = Mempool(
            config.mempool.max_bytes,
            config.mempool.max_transactions,
            config.mempool.max_per_sender,
            time.monotonic,
        )
        self.tls = Tls(
            certificate=config.tls.certificate,
            key=config.tls.key,
            ca=config.tls.ca,
            trust_domain=config.tls.trust_domain,
            chain_id=config.chain_id,
            name=config.name,
            crl=config.tls.crl,
        )
        self.keeper = Keeper(self.tls)
        settings = network_settings(config, genesis.hash, self.tls)
        self.refused: dict[str, int] = {}
        self.network = Network(
            settings,
            self,
            on_refused=self._count_refused,
            is_validator=lambda name: self.ledger.validators.index_of(name) is not None,
        )
        self.snapshots = Snapshots(
            config.data_dir,
            config.snapshots,
            store=store,
            ledger=self.ledger,
            install=self._install,
        )
        self.sync = BlockSync(
            settings,
            self.ledger.validators_at,
            height=lambda: self.ledger.height,
            adopt=self._adopt,
            snapshots=self.snapshots.sync,
            on_fault=self._sync_failed,
        )
        self.sync_server = SyncServer(
            settings,
            blocks=store.encoded_blocks,
            height=lambda: self.ledger.height,
            first_height=store.first_height,
            snapshots=self.snapshots.kept,
            on_refused=self._count_refused,
        )
        self._key = key
        self._number = secrets.token_bytes(16)  # of its marks
        rejoin = None
        if key is not None and votes is not None:
            public_key, sign = key.public_key, key.sign
            rejoin = Rejoin(
                votes,
                make=lambda height, view, records: Replica(
                    chain_id=config.chain_id,
                    validators_at=self.ledger.validators_at,
                    public_key=public_key,
                    sign=sign,
                    check_proposal=self.ledger.process_proposal,
                    timeouts=Timeouts(
                        view=config.consensus.view_timeout_ms / 1000,
                        view_max=config.consensus.view_timeout_max_ms / 1000,
                    ),
                    height=height,
                    view=view,
                    records=records,
                    max_block_bytes=genesis.parameters.max_block_bytes,
                ),
                is_member=lambda height: (
                    self.ledger.validators_at(height).index_of_key(public_key) is not None
                ),
                mark=self._mark,
                is_marked=self._is_marked,
            )
        if evidence is not None:
            evidence.accused = self._accused
        self.driver = Driver(
            ledger=self.ledger,
            mempool=self.mempool,
            replica=None,
            votes=votes,
            evidence=evidence,
            rejoin=rejoin,
            settings=config.consensus,
            outside=self,
            metrics=self.metrics,
            clock=time.monotonic,
        )
        self.service = NodeService(
            config=config,
            ledger=self.ledger,
            mempool=self.mempool,
            driver=self.driver,
            network=self.network,
            sync=self.sync,
            gossip=self._gossip,
            clock=time.monotonic,
        )
        self._agreed = 0  # the last activation that was looked at
        self._learn_members()
        self.store = store
        self.votes = votes
        self.metrics.watch(self._snapshot)

    async def run(self) -> None:
        """Serve until cancelled, or until a part fails."""
        async with anyio.create_task_group() as tasks:
            await tasks.start(self.network.run)
            await tasks.start(self.sync_server.run)
            await tasks.start(self.sync.run)
            tasks.start_soon(self.driver.run)
            tasks.start_soon(self._checkpoint)
            tasks.start_soon(self.snapshots.run)
            tasks.start_soon(self.keeper.run)
            api = self.config.api.listen
            tasks.start_soon(serve, create_app(self.service, self.metrics), api.host, api.port)
            log.info(
                "started",
                name=self.config.name,
                role=self.config.role,
                version=__version__,
                chain_id=self.config.chain_id,
                height=self.ledger.height,
                genesis=self.ledger.genesis.hash.hex(),
            )

    def _accused(self, evidence: Evidence) -> bytes | int:
        validators, index = self.ledger.validators_at(evidence.height), evidence.validator
        # The evidence may be of heights that this store has lost, and of sets it does not know.
        return validators[index].public_key if index < len(validators) else index

    async def _checkpoint(self) -> None:
        """Keep the write-ahead log short, off the commit path."""
        while True:
            await anyio.sleep(CHECKPOINT_SECONDS)
            await to_thread.run_sync(self.store.checkpoint)

    def _sync_failed(self, peer: str, reason: str) -> None:
        log.warning("block sync", peer=peer, fault=reason)
        self.driver.wake()  # what the peer claimed may be believed no longer

    async def _adopt(self, certified: CertifiedBlock) -> None:
        await self.driver.adopt(certified)

    async def _install(self, assembly: Assembly) -> None:
        await self.driver.adopt(assembly)

    # net.network.Handler

    async def on_message(self, peer: str, message: Delivered) -> None:
        match message:
            case Consensus():
                if self.driver.replica is not None:
                    await self.driver.receive(decode(message.payload, Message))
            case Transactions():
                await self.service.admit_from_peer(message.raws)
            case Status():
                self.sync.on_status(peer, message.height)
                self.driver.wake()

    def on_connected(self, peer: str, hello: Hello) -> None:
        self.sync.on_status(peer, hello.height)
        waiting = [checked.raw for checked in self._waiting()]
        if waiting and self.ledger.validators.index_of(peer) is not None:
            self.network.send(peer, Transactions(tuple(waiting)))
        self.driver.wake()

    def on_disconnected(self, peer: str) -> None:
        self.sync.on_disconnected(peer)
        self.driver.wake()  # it may have been what kept this node out of step

    def hello_height(self) -> int:
        return self.ledger.height

    # driver.Outside

    def send(self, message: Message) -> None:
        self.network.broadcast(Consensus(encode(message)), to="validators")

    def announce(self) -> None:
        self._learn_members()
        self.service.committed()
        self.snapshots.committed()
        status = Status(self.ledger.height, self.ledger.head_hash, self.service.view())
        self.network.broadcast(status, to="all")

    def _learn_members(self) -> None:
        """Admit, and connect to, validators that the chain names and the configuration does not.

        From the agreement on: when they begin to vote, they are to be connected.
        """
        if self._agreed == self.ledger.last_activation:
            return
        self._agreed = self.ledger.last_activation
        for peer in self.service.membership.joined():
            self.network.learn(peer)
            self.sync.learn(peer)

    def in_step(self) -> bool:
        validators = self.ledger.validators
        others = [each.name for each in validators if each.name != self.config.name]
        # f of them may claim what they like, to keep this node from its part.
        claimed = self.sync.claimed_by(others, validators.tolerated_faults + 1)
        return self._quorate() and claimed <= self.ledger.height

    def newest(self) -> bool:
        return self._quorate() and self.sync.target_height <= self.ledger.height

    def _quorate(self) -> bool:
        validators = self.ledger.validators
        here = {peer.name for peer in self.network.peers() if peer.connected} | {self.config.name}
        # Alone, waiting for a leader is pointless.
        return sum(each.name in here for each in validators) >= validators.quorum

    async def _mark(self) -> bytes | None:
        """Hand in a transaction that could not exist before the start; its identifier."""
        assert self._key is not None
        account = account_of(self._key.public_key)
        raw = sign_transaction(
            self._key,
            chain_id=self.config.chain_id,
            nonce=self.ledger.next_nonce(account),
            expires_at_ms=time.time_ns() // 1_000_000 + MARK_VALIDITY_MS,
            actions=[Put(MARK_KEY, self._number)],
        )
        verdicts = await self.service.submit([raw])
        self.stalled()  # an earlier one may wait here alone
        return transaction_id(raw) if verdicts[0].accepted else None

    def _is_marked(self) -> bool:
        """Whether the state has the number that was drawn at the start."""
        assert self._key is not None
        return self.ledger.value(account_of(self._key.public_key), MARK_KEY) == self._number

    def stalled(self) -> None:
        self._gossip([checked.raw for checked in self._waiting()])

    def _waiting(self) -> list[CheckedTransaction]:
        return self.mempool.candidates(GOSSIP_BYTES, GOSSIP_TRANSACTIONS)

    def _gossip(self, raws: list[bytes]) -> None:
        for page in pages(raws):
            self.network.broadcast(Transactions(page), to="validators")

    def _count_refused(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def _snapshot(self) -> Snapshot:
        peers = self.network.peers()
        pool = self.mempool.statistics()
        sizes = self.store.statistics()
        replica = self.driver.replica
        return Snapshot(
            height=self.ledger.height,
            view=self.service.view(),
            ready=self.service.readiness()[0],
            peers_connected=sum(peer.connected for peer in peers),
            peers_configured=len(peers),
            mempool_transactions=pool.transactions,
            mempool_bytes=pool.bytes,
            missing_validators=self.service.missing_validators(peers),
            certificate_begin=self.tls.loaded.identity.not_before,
            certificate_expiry=self.tls.not_after,
            crl_next_update=self.tls.loaded.revocations.next_update,
            identity=self.tls.loaded.summary,
            identity_refused=self.keeper.refused,
            identity_reloads=self.keeper.reloads,
            storage_bytes=sizes.database_bytes + sizes.write_ahead_log_bytes,
            first_height=self.store.first_height(),
            snapshot_height=max(self.snapshots.kept.heights, default=0),
            journal_bytes=0 if self.votes is None else self.votes.size,
            buffered_bytes=0 if replica is None else replica.buffered_bytes,
            validators=len(self.ledger.validators),
            open_proposals=self.service.membership.open_proposals(),
            next_activation=self.service.membership.next_activation(),
            sync_target_height=self.sync.target_height,
            refused_connections=self.refused,
            dropped_frames={peer.name: peer.dropped for peer in peers},
            peer_latency_s={p.name: p.latency_s for p in peers if p.latency_s is not None},
        )


def pages(raws: list[bytes]) -> Iterator[tuple[bytes, ...]]:
    """Split transactions into messages of bounded count and size."""
    page: list[bytes] = []
    size = 0
    for raw in raws:
        if page and (len(page) == GOSSIP_TRANSACTIONS or size + len(raw) > GOSSIP_BYTES):
            yield tuple(page)
            page, size = [], 0
        page.append(raw)
        size += len(raw)
    if page:
        yield tuple(page)


def network_settings(config: Config, genesis_hash: bytes, tls: Tls) -> NetworkSettings:
    """Translate the configuration for the network layer."""
    return NetworkSettings(
        name=config.name,
        role=config.role,
        chain_id=config.chain_id,
        genesis_hash=genesis_hash,
        host=config.p2p.listen.host,
        port=config.p2p.listen.port,
        sync_host=config.p2p.sync_listen.host,
        sync_port=config.p2p.sync_listen.port,
        peers=tuple(
            PeerSettings(
                name=peer.name,
                role=peer.role,
                host=peer.address.host,
                port=peer.address.port,
                sync_host=peer.sync_address.host,
                sync_port=peer.sync_address.port,
            )
            for peer in config.peers
        ),
        tls=tls,
        max_block_bytes=config.read_genesis().parameters.max_block_bytes,
    )
