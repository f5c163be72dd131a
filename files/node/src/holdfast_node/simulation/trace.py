# SPDX-License-Identifier: Apache-2.0
"""Messages in a few words."""

from holdfast_node.consensus.messages import Message, NewView, PrePrepare, ViewChange, Vote


def describe(message: Message) -> str:
    """One message for the trace: kind, height/view, block."""
    match message:
        case PrePrepare():
            where = f"{message.height}/{message.view}"
            return f"pre-prepare {where} {message.block.hash.hex()[:8]}"
        case Vote():
            where = f"{message.height}/{message.view}"
            return f"{message.kind} {where} {message.block_hash.hex()[:8]} by v{message.validator}"
        case ViewChange():
            proof = message.prepared
            shown = "nothing" if proof is None else f"{proof.view} {proof.block_hash.hex()[:8]}"
            return f"view-change {message.height}/{message.view} prepared {shown}"
        case NewView():
            of = ",".join(f"v{change.validator}" for change in message.view_changes)
            return f"new-view {message.height}/{message.view} of {of}"
