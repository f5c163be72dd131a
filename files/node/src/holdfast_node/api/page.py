# SPDX-License-Identifier: Apache-2.0
"""The status page: one self-contained document that fetches from its own origin only."""

import secrets
from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

_NONCE = "@NONCE@"


@cache
def template() -> str:
    """The page, with a placeholder where the nonce goes."""
    return files(__package__).joinpath("page.html").read_text(encoding="utf-8")


async def page_endpoint(_request: Request) -> Response:
    """GET /. Only the script and the style that carry this answer's nonce are run."""
    nonce = secrets.token_urlsafe(16)
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
        "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return HTMLResponse(
        template().replace(_NONCE, nonce), headers={"content-security-policy": policy}
    )
