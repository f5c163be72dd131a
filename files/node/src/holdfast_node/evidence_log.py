# SPDX-License-Identifier: Apache-2.0
"""Evidence against validators, kept on disk, so much of it and no more."""

from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from holdfast_node.api.service import EvidenceView
from holdfast_node.chain.codec import decode, encode
from holdfast_node.chain.validators import ValidatorSet
from holdfast_node.consensus import Evidence
from holdfast_node.errors import RefusedError, StorageError
from holdfast_node.storage.journal import Journal

# The first offences convict; one validator cannot fill the file, nor push out the others.
MOST_PER_VALIDATOR: Final = 16

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger()


class EvidenceLog:
    """Proofs in the file `path`, each about another subject, at most 16 per validator.

    `accused(evidence)` says who a validator is, whatever index it had; set it when that is known.

    It is no part of what keeps the node from voting twice: a damaged file is put aside.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._journal, self._kept = _open(path)
        except (StorageError, RefusedError) as error:
            aside = path.with_name(path.name + ".damaged")
            path.replace(aside)
            log.warning("the evidence could not be read", put_aside=str(aside), error=str(error))
            self._journal, self._kept = _open(path)
        self.accused: Callable[[Evidence], bytes | int] = lambda evidence: evidence.validator
        self._subjects = {evidence.subject for evidence in self._kept}

    def wants(self, evidence: Evidence) -> bool:
        """Whether it says anything new, and there is room for more about this validator."""
        whose = self.accused(evidence)
        mine = sum(self.accused(known) == whose for known in self._kept)
        return evidence.subject not in self._subjects and mine < MOST_PER_VALIDATOR

    def add(self, evidence: Evidence) -> bool:
        """Keep `evidence`, durably, if it is wanted; returns whether. Raises `StorageError`."""
        if not self.wants(evidence):
            return False
        self._journal.append([encode(evidence)])
        self._kept.append(evidence)
        self._subjects.add(evidence.subject)
        return True

    def all(self) -> list[Evidence]:
        """Everything that is kept, oldest first."""
        return list(self._kept)

    def close(self) -> None:
        self._journal.close()


def evidence_view(evidence: Evidence, validators: ValidatorSet) -> EvidenceView:
    """What the API shows of it; `validators` are those of its height, as far as is known."""
    index = evidence.validator
    return EvidenceView(
        validator=validators[index].name if index < len(validators) else f"validator {index}",
        index=index,
        kind=evidence.kind,
        height=evidence.height,
        view=evidence.view,
        statements=[
            {
                "signed": b64encode(statement.body).decode(),
                "signature": b64encode(statement.signature).decode(),
            }
            for statement in (evidence.first, evidence.second)
        ],
    )


def _open(path: Path) -> tuple[Journal, list[Evidence]]:
    journal = Journal(path)
    try:
        return journal, [decode(record, Evidence) for record in journal.replay()]
    except BaseException:
        journal.close()
        raise
