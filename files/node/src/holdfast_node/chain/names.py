# SPDX-License-Identifier: Apache-2.0
"""Names of chains and nodes, and the identity that a certificate carries."""

import re
from typing import Final

CHAIN_ID: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?")
NODE_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def spiffe_id(trust_domain: str, chain_id: str, name: str) -> str:
    """Return the URI in the certificate of the node `name`."""
    return f"spiffe://{trust_domain}/chain/{chain_id}/node/{name}"
