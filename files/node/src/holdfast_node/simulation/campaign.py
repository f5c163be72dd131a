# SPDX-License-Identifier: Apache-2.0
"""Many seeds on all cores."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from holdfast_node.simulation.run import Outcome, simulate


def campaign(seeds: Iterable[int], jobs: int | None = None) -> Iterator[Outcome]:
    """The outcomes of `seeds`, in their order; the traces of runs without a violation are left out.

    `jobs` processes work on them, by default one per core.
    """
    # Forked children would inherit locks that another thread holds at that moment.
    workers = ProcessPoolExecutor(jobs or os.cpu_count(), mp_context=get_context("spawn"))
    with workers:
        try:
            yield from workers.map(_briefly, seeds, chunksize=4)
        finally:
            workers.shutdown(wait=False, cancel_futures=True)


def _briefly(seed: int) -> Outcome:
    outcome = simulate(seed)
    if outcome.violation is None:
        outcome.trace.clear()
    return outcome
