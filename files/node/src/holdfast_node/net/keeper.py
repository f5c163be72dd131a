# SPDX-License-Identifier: Apache-2.0
"""Keeps the identity in use the one on disk: read again on request, and when the files change."""

from typing import Final

import anyio
from anyio import to_thread

from holdfast_node.errors import ConfigError
from holdfast_node.net.tls import Tls

LOOK_SECONDS: Final = 1.0
# What was refused may be right later without another change: a certificate of the near future.
RETRY_SECONDS: Final = 60.0


class Keeper:
    """Reloads `tls`, off the event loop, one reload at a time."""

    def __init__(self, tls: Tls) -> None:
        self.tls = tls
        self.reloads: dict[str, int] = {"accepted": 0, "refused": 0}
        self.refused = False
        self._read = tls.fingerprint()
        self._turn = anyio.Lock()

    async def reload(self) -> bool:
        """Read the files again; if they cannot be used, log why and go on with what we have.

        `refused` says from then on that the files are not what is in use.
        """
        async with self._turn:
            seen = self.tls.fingerprint()
            try:
                loaded = await to_thread.run_sync(self.tls.load)
            except ConfigError as error:
                self.tls.refuse(error)
                self.refused = True
            else:
                self.tls.adopt(loaded)
                self.tls.tell()
                self.refused = False
            self._read = seen
            self.reloads["refused" if self.refused else "accepted"] += 1
            return not self.refused

    async def run(self) -> None:
        """Look for changed files until cancelled."""
        before = self._read
        refused_for = 0.0
        while True:
            await anyio.sleep(LOOK_SECONDS)
            seen = self.tls.fingerprint()
            # Not while they are still being written one by one.
            is_new = seen != self._read and seen == before
            before = seen
            refused_for = refused_for + LOOK_SECONDS if self.refused else 0.0
            if is_new or refused_for >= RETRY_SECONDS:
                refused_for = 0.0
                await self.reload()
