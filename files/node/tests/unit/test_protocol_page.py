# SPDX-License-Identifier: Apache-2.0
"""What the page of the protocol names is there: modules, classes, functions, records, messages."""

import re
from importlib import import_module
from pathlib import Path

import holdfast_node
from holdfast_node.consensus import messages, votes

ROOT = Path(holdfast_node.__file__).parent
PAGE = (ROOT / "consensus" / "PROTOCOL.md").read_text()
MODULES = {path.stem for path in (ROOT / "consensus").glob("*.py")} | {"driver"}


def test_names_exist() -> None:
    """Every `module.Name` of the consensus package, or of the driver, leads somewhere."""
    found = set(re.findall(r"`([a-z_]+(?:\.[A-Za-z_]+)+)`", PAGE))
    names = {name for name in found if name.split(".")[0] in MODULES and not name.endswith(".py")}
    assert len(names) > 30
    for name in sorted(names):
        module, *path = name.split(".")
        where = "" if module == "driver" else ".consensus"
        here = import_module(f"holdfast_node{where}.{module}")
        for part in path:
            assert hasattr(here, part) or part in getattr(here, "__slots__", ()), name
            here = getattr(here, part)


def test_files_exist() -> None:
    """So does every file."""
    for name in re.findall(r"`([a-z_/]+\.py)`", PAGE):
        places = [ROOT / "consensus" / name, ROOT / name, ROOT.parents[1] / name]
        assert any(place.is_file() for place in places), name


def test_messages_and_records_are_complete() -> None:
    """Each message has a row, and each record of the journal."""
    for kind in messages.Message.__args__:
        assert f"`{kind.__name__}`" in PAGE, kind
    for kind in messages.JournalRecord.__args__:
        assert f"`messages.{kind.__name__}`" in PAGE, kind


def test_numbers_are_those_of_the_code() -> None:
    """The watermarks of views, as the page has them."""
    bounds = f"from {votes.VIEWS_BEHIND} below to {votes.VIEWS_AHEAD} above"
    assert bounds in " ".join(PAGE.split())
