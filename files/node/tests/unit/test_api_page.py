# SPDX-License-Identifier: Apache-2.0
"""The status page needs nothing from outside and lets nothing in."""

import re
from html.parser import HTMLParser

import pytest
from fake_service import FakeService
from starlette.requests import Request

from holdfast_node.api.operations import Operations
from holdfast_node.api.page import page_endpoint, template
from holdfast_node.api.rest import Rest

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def page() -> tuple[str, str]:
    """Content and policy of one answer."""
    response = await page_endpoint(Request({"type": "http"}))
    return response.body.decode(), response.headers["content-security-policy"]


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


async def test_page_refers_to_nothing_outside():
    text, _ = await page()
    namespace = "http://www.w3.org/2000/svg"  # a name, which no browser fetches
    rest = text.replace(f"xmlns='{namespace}'", "")
    assert re.findall(r"https?:", rest) == []
    assert re.findall(r"@import|url\(|srcset|<iframe|<form", rest) == []
    for tag, attributes in Elements(text).found:
        for name in ("src", "href", "action", "data"):
            target = attributes.get(name) or "/"
            assert re.match(r"/(?!/)|data:image/svg", target), (tag, target)


async def test_everything_that_runs_carries_the_nonce_and_the_nonce_is_new_each_time():
    first, policy = await page()
    second, _ = await page()
    [nonce] = set(re.findall(r"'nonce-([\w-]{20,})'", policy))
    elements = Elements(first).found
    active = [attributes for tag, attributes in elements if tag in {"script", "style"}]
    assert len(active) == 2
    assert all(attributes["nonce"] == nonce for attributes in active)
    assert nonce not in second
    assert "@NONCE@" not in first
    # The policy would block these: they must not be relied on.
    assert not any(name == "style" or name.startswith("on") for _, a in elements for name in a)


async def test_policy_allows_its_own_origin_only():
    _, policy = await page()
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["connect-src"] == "'self'"
    assert directives["base-uri"] == directives["form-action"] == "'none'"
    assert "unsafe" not in policy


def test_names_from_the_network_are_never_read_as_markup():
    assert (
        re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", template()) == []
    )


def test_page_asks_only_for_what_the_node_serves():
    """Each path that the script fetches or the page links is a route."""
    service = FakeService()
    routes = Rest(Operations(service, None, None), service, None, None).routes()
    asked = set(re.findall(r"""["'`](/(?:v1|metrics)[\w/]*)""", template()))
    assert {"/v1/status", "/v1/blocks", "/v1/latency", "/v1/blocks/"} <= asked
    for path in asked:
        concrete = path + "1" if path.endswith("/") else path
        assert any(route.path_regex.match(concrete) for route in routes), path


def test_every_element_that_the_script_fills_exists_once():
    text = template()
    identifiers = [a["id"] for _, a in Elements(text).found if a.get("id")]
    assert len(identifiers) == len(set(identifiers))
    used = set(re.findall(r"""\b(?:at|put)\("([\w-]+)\"""", text))
    assert len(used) > 15
    assert used - set(identifiers) <= {"marker"}  # made by the script


def test_page_can_be_used_without_a_mouse_or_sight():
    elements = Elements(template()).found
    [html] = [a for tag, a in elements if tag == "html"]
    assert html["lang"] == "en"
    tags = [tag for tag, _ in elements]
    assert tags.count("h1") == tags.count("main") == 1
    [plot] = [a for _, a in elements if a.get("id") == "plot"]
    assert plot["role"] == "img"
    assert plot["tabindex"] == "0"
    identifiers = {a.get("id") for _, a in elements}
    for _, attributes in elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(name) is None or attributes[name] in identifiers
    assert all(a.get("scope") == "col" for tag, a in elements if tag == "th")
