# Copyright: (c) 2026, Holdfast contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking a node, against a small HTTP server in its place."""

from __future__ import annotations

import http.server
import json
import threading

import pytest
from ansible_collections.holdfast.chain.plugins.module_utils import node_api


@pytest.fixture
def node():
    """A node whose answers a test sets: node.answers[path] = (status, body)."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = server.answers.get(self.path, (404, b""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.answers = {}
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def answer(node, ready: bool, **status: object) -> None:
    told = {"ready": ready} if ready else {"ready": False, "reason": "3 blocks behind"}
    node.answers["/readyz"] = (200 if ready else 503, json.dumps(told).encode())
    node.answers["/v1/status"] = (200, json.dumps(status).encode())


def test_a_ready_node(node, run_module):
    answer(node, True, height=7, leader="v1")
    found = run_module("node_info", {"url": node.url, "wait": "ready", "min_height": 7})
    assert not found["changed"]
    assert (found["reachable"], found["ready"], found["height"]) == (True, True, 7)
    assert found["status"]["leader"] == "v1"


def test_without_waiting_every_answer_is_fine(node, run_module):
    answer(node, False, height=4)
    found = run_module("node_info", {"url": node.url})
    assert not found.failed
    assert (found["reachable"], found["ready"]) == (True, False)
    assert found["reason"] == "3 blocks behind"


def test_a_node_that_does_not_run_is_an_answer_without_waiting(run_module):
    found = run_module("node_info", {"url": "http://127.0.0.1:1"})
    assert not found.failed
    assert not found["reachable"]
    assert "refused" in found["reason"]


@pytest.mark.parametrize(
    ("wait", "said"), [("ready", "3 blocks behind"), ("none", "its height is 4, wanted 9")]
)
def test_what_is_missing_at_the_end_is_said(node, run_module, wait, said):
    answer(node, False, height=4)
    options = {"url": node.url, "wait": wait, "wait_timeout": 0, "min_height": 9}
    found = run_module("node_info", options)
    assert found.failed
    assert said in found["msg"]
    assert found["status"] == {"height": 4}


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"ready": "yes"}', b"\xff", b'{"ready": false}']
)
def test_nonsense_is_never_taken_for_ready(node, run_module, body):
    node.answers["/readyz"] = (200, body)
    node.answers["/v1/status"] = (200, b"{}")
    found = run_module("node_info", {"url": node.url})
    assert found["reachable"]
    assert not found["ready"]
    assert found["reason"]


def test_ready_without_a_status_is_not_ready(node, run_module):
    answer(node, True)
    node.answers["/v1/status"] = (500, b"")
    found = run_module("node_info", {"url": node.url})
    assert not found["ready"]
    assert "/v1/status answered 500" in found["reason"]


def test_waiting_ends_as_soon_as_nothing_is_missing():
    answers = [
        node_api.Answer(False, False, "refused", {}),
        node_api.Answer(True, False, "behind", {"height": 1}),
        node_api.Answer(True, True, "", {"height": 2}),
    ]
    now = [0.0]
    found, lacks = node_api.wait(
        lambda: answers.pop(0),
        lambda given: node_api.shortfalls(given, "ready", 2),
        60,
        clock=lambda: now[0],
        sleep=lambda seconds: now.__setitem__(0, now[0] + seconds),
    )
    assert found.ready
    assert not lacks
    assert now[0] < 1


def test_waiting_ends_when_the_time_is_over():
    now = [0.0]
    _, lacks = node_api.wait(
        lambda: node_api.Answer(False, False, "refused", {}),
        lambda given: node_api.shortfalls(given, "reachable", -1),
        10,
        clock=lambda: now[0],
        sleep=lambda seconds: now.__setitem__(0, now[0] + seconds),
    )
    assert lacks == ["it does not answer: refused"]
    assert 9 <= now[0] <= 10


def test_a_url_that_is_none_is_named(run_module):
    assert "url = v1:8545: expected" in run_module("node_info", {"url": "v1:8545"})["msg"]
