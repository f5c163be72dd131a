# SPDX-License-Identifier: Apache-2.0
"""When a leader that passes over a transaction is suspected, and for how long."""

import pytest

from holdfast_node.consensus.patience import Patience

SECONDS = 4.0
HELD_BACK = b"held back"


@pytest.fixture
def patience() -> Patience:
    watching = Patience(SECONDS)
    watching.watch(HELD_BACK, 0.0)
    return watching


def suspected(
    patience: Patience, *times: float, view: int = 0, room: bool = True, newest: float | None = None
) -> list[float]:
    """Those of `times` at which a block that leaves the transaction out brings suspicion."""
    return [
        now
        for now in times
        if patience.committed([b"other"], room=room, newest=newest, view=view, now=now)
    ]


def test_two_blocks_after_the_patience_bring_suspicion_that_lasts(patience: Patience) -> None:
    """Others who came to it a little later find this validator still of that mind."""
    assert suspected(patience, 1.0, 3.9) == []
    assert suspected(patience, 4.0) == []
    assert suspected(patience, 4.5, 5.5, 6.4) == [4.5, 5.5, 6.4]  # half of SECONDS
    assert suspected(patience, 6.5, 14.4) == []  # then twice as patient
    assert suspected(patience, 14.5, 15.0, 18.9, 19.0) == [15.0, 18.9]


def test_those_who_began_apart_meet(patience: Patience) -> None:
    """Validators that began to wait 5 seconds apart suspect the leader at the same time once."""
    later = Patience(SECONDS)
    later.watch(HELD_BACK, 5.0)
    times = [tenth / 10 for tenth in range(600)]
    both = set(suspected(patience, *times)) & set(suspected(later, *times))
    assert both


def test_the_next_leader_is_given_time(patience: Patience) -> None:
    """Suspicion is of the leader who passed it over."""
    assert suspected(patience, 4.0, 4.25) == [4.25]
    assert suspected(patience, 4.5, 4.75, 12.25, view=1) == []
    assert suspected(patience, 12.5, 12.75, view=1) == [12.75]


def test_doublings_are_bounded(patience: Patience) -> None:
    """However long it waits, suspicion comes again."""
    found = suspected(patience, *[float(second) for second in range(4000)])
    assert found[-1] > 3500


def test_full_blocks_of_older_ones_are_no_reason(patience: Patience) -> None:
    """A queue is not censorship; a queue that lets later ones pass is."""
    assert suspected(patience, 5.0, 6.0, 7.0, room=False) == []
    assert suspected(patience, 8.0, 9.0, room=False, newest=3.9) == []
    assert suspected(patience, 10.0, 11.0, room=False, newest=4.0) == [11.0]


def test_a_block_with_it_ends_the_matter(patience: Patience) -> None:
    """Neither that block nor those of a time when nothing waits bring suspicion."""
    assert not patience.committed([HELD_BACK], room=True, newest=0.0, view=0, now=9.0)
    patience.watch(None, 9.0)
    assert suspected(patience, 50.0, 51.0) == []
    patience.watch(b"another", 52.0)
    assert suspected(patience, 53.0, 54.0, 55.9) == []
