# SPDX-License-Identifier: Apache-2.0
"""Executes proposals in a worker thread, before the replica judges them on the event loop."""

from collections.abc import Callable
from contextlib import suppress

from anyio import to_thread

from holdfast_node.chain.block import Block
from holdfast_node.consensus import NewView, PrePrepare, Replica, check_message, check_size
from holdfast_node.errors import RefusedError
from holdfast_node.ledger.ledger import Ledger
from holdfast_node.observe.metrics import Metrics


class Examiner:
    """The ledger keeps the verdict, good or bad, so the replica finds it there.

    Nothing is executed that the replica would not look at now: who leads a view to come, or has
    proposed already, could have this node execute whatever it likes. `seen` is told of every
    proposal, by hash, and when it came.
    """

    def __init__(
        self,
        ledger: Ledger,
        metrics: Metrics,
        clock: Callable[[], float],
        seen: Callable[[bytes, float], None],
    ) -> None:
        self._ledger = ledger
        self._metrics = metrics
        self._clock = clock
        self._seen = seen

    async def proposal(self, replica: Replica, message: PrePrepare) -> None:
        """A proposal has come."""
        if message.height != replica.height or not replica.awaits_proposal(message.view):
            return
        now = self._clock()
        try:
            check_message(message, chain_id=replica.chain_id, validators=replica.validators)
            check_size(message, self._ledger.genesis.parameters.max_block_bytes)
            self._seen(message.block.hash, now)
            await to_thread.run_sync(self._process, message.block)
        except RefusedError:
            return  # the replica comes to the same verdict, and reports it
        self._metrics.step("validate", self._clock() - now)

    async def new_view(self, replica: Replica, message: NewView) -> None:
        """A NEW-VIEW has come, which a proposal may have overtaken."""
        blocks = replica.early_proposals(message.view)
        if blocks and message.height == replica.height:
            with suppress(RefusedError):
                check_message(message, chain_id=replica.chain_id, validators=replica.validators)
                await self.first_of(blocks)

    async def first_of(self, blocks: list[Block]) -> None:
        """Execute proposals that waited, up to the first sound one: that is the one that counts."""
        for block in blocks:
            with suppress(RefusedError):
                await to_thread.run_sync(self._process, block)
                return

    def _process(self, block: Block) -> None:
        with suppress(RefusedError):  # found again below, and the verdict kept
            if block.has_valid_transactions_root():  # before each is verified
                self._ledger.verify_transactions(block.transactions)
        self._ledger.process_proposal(block)
