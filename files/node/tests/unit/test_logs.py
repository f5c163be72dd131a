# SPDX-License-Identifier: Apache-2.0
"""Logs: one bounded line per event, no secrets, libraries included."""

import io
import json
import logging

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_node.chain.crypto import PrivateKey
from holdfast_node.observe import logs

PEM = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQ\n-----END PRIVATE KEY-----"


@pytest.fixture(autouse=True)
def restore():
    """Put the libraries' own set-up back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def configured(level="info", form="json"):
    stream = io.StringIO()
    logs.configure_logs(level, form, stream)
    return structlog.get_logger(), stream


def fail(text):
    raise ValueError(text)


def events(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_of_json():
    log, stream = configured()
    log.info("block committed", height=7, hash=b"\x01\xff", peers=["v2", "v3"], took=0.5, view=None)
    (event,) = events(stream)
    assert event.pop("time").endswith("Z")
    assert event == {
        "event": "block committed",
        "level": "info",
        "height": 7,
        "hash": "01ff",
        "peers": ["v2", "v3"],
        "took": 0.5,
        "view": None,
    }


def test_events_below_the_level_are_left_out():
    log, stream = configured("warning")
    log.debug("no")
    log.info("no")
    log.warning("yes")
    assert [event["event"] for event in events(stream)] == ["yes"]


@pytest.mark.parametrize(
    "name",
    ["secret", "seed", "password", "CA_PASSPHRASE", "api-token", "validator_key", "private_keys"],
)
def test_values_under_names_of_secrets_are_hidden(name):
    log, stream = configured()
    log.info("event", **{name: "hunter2"})
    log.info("event", settings={"inner": {name: "hunter2"}})
    log.info("event", settings=[{name: "hunter2"}])
    assert "hunter2" not in stream.getvalue()
    assert stream.getvalue().count("(hidden)") == 3


@pytest.mark.parametrize("name", ["public_key", "key", "keys", "tokens_per_s", "monkey"])
def test_other_names_are_shown(name):
    log, stream = configured()
    log.info("event", **{name: "value"})
    assert events(stream)[0][name] == "value"


def test_a_private_key_in_any_text_is_hidden():
    """In a message, a value, an exception and its traceback; even when it is cut."""
    for form in ("json", "console"):
        log, stream = configured(form=form)
        log.info(PEM, text=PEM, cut=PEM[:40], nested=[PEM])
        try:
            fail(PEM)
        except ValueError as error:
            log.exception("failed", error=error)
        logging.getLogger("library").error("read %s", PEM)
        assert "MC4" not in stream.getvalue()
        assert "(hidden)" in stream.getvalue()


def test_a_key_object_shows_only_its_public_half():
    log, stream = configured()
    key = PrivateKey(bytes(range(32)))
    log.info("event", signer=key)
    assert key.seed.hex() not in stream.getvalue()
    assert key.public_key.hex() in stream.getvalue()


def test_an_exception_is_told_with_the_end_of_its_traceback():
    log, stream = configured()
    try:
        fail("x" * 100_000 + " the end")
    except ValueError:
        log.exception("failed")
    (event,) = events(stream)
    assert event["exception"].endswith("the end")
    assert len(event["exception"]) <= logs.MAX_TRACEBACK


def test_the_console_shows_no_local_variables():
    log, stream = configured(form="console")
    hidden_local = "hunter2"
    try:
        fail(str(len(hidden_local)))
    except ValueError:
        log.exception("failed")
    assert "ValueError: 7" in stream.getvalue()
    assert "hunter2" not in stream.getvalue().replace('hidden_local = "hunter2"', "")


@pytest.mark.parametrize("form", ["json", "console"])
def test_text_from_outside_cannot_forge_a_line(form):
    log, stream = configured(form=form)
    log.info("bad name\n2026-01-01 [error] forged", name="a\rb\x1b[2Jc\u2028d")
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b[2J" not in stream.getvalue()


def test_what_libraries_log_takes_the_same_way():
    _, stream = configured()
    logging.getLogger("some.library").warning("slow %s", "client", extra={"password": "hunter2"})
    logging.getLogger("asyncio").info("chatter")
    (event,) = events(stream)
    assert (event["event"], event["logger"], event["level"]) == (
        "slow client",
        "some.library",
        "warning",
    )


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.builds(object)
    | st.just("x" * 100_000)
    | st.just(b"x" * 100_000),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=9) | st.integers(), inner, max_size=3)
        | inner.map(lambda one: [one] * 10_000)
        | st.tuples(inner)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=20), anything, max_size=9))
@settings(deadline=None)  # of time it takes what a busy machine gives
def test_every_event_is_a_bounded_line_of_json(values):
    """Whatever a peer made us log."""
    event = logs.clean(None, "info", {"event": "e", "level": "info", "more": values})
    line = logs.render_json(None, "info", event)
    assert len(line) <= logs.MAX_LINE
    assert "\n" not in line
    read = json.loads(line, parse_constant=pytest.fail)
    assert (read["event"], read["level"]) == ("e", "info")


def test_a_huge_event_keeps_what_it_is_about():
    log, stream = configured()
    log.info("received", peer="v2", **{f"field{i}": ["x" * 2_000] * 100 for i in range(100)})
    (event,) = events(stream)
    assert (event["event"], event["level"]) == ("received", "info")
    assert event["cut"].endswith(" bytes")
