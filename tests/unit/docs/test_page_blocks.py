"""No command of README and docs is forgotten: a test runs it, or the page's source says why none can."""

from __future__ import annotations

import re

import pytest
from tests.harness.page_blocks import PAGES, ROOT, SHELL, Block, blocks

ALL = [block for page in PAGES for block in blocks(page)]
COMMANDS = [block for block in ALL if block.language in SHELL]
PROGRAMS = ("$ ", "curl ", "patrolserver-", "make ", "pip ", "docker ", "systemctl ", "apt-get ")


def test_pages_have_blocks() -> None:
    """The reading finds them."""
    assert len(COMMANDS) > 40
    assert {block.page for block in COMMANDS} >= {"README.md", "CONTRIBUTING.md", "docs/install.md"}


@pytest.mark.parametrize("block", ALL, ids=str)
def test_a_block_says_what_it_is(block: Block) -> None:
    """One without a language would be overlooked; commands in another one, too."""
    assert block.language, "give the fence a language: sh for commands, text for what is printed"
    synopsis = "…" in block.text
    assert block.language in SHELL or synopsis or not block.text.startswith(PROGRAMS)


@pytest.mark.parametrize("block", COMMANDS, ids=str)
def test_a_block_of_commands_is_run_or_says_why_not(block: Block) -> None:
    """By a test or script that is there and names it."""
    assert block.mark, "above the block: <!-- run: PATH, NAME --> or <!-- not run: REASON -->"
    if block.mark == "not run":
        assert len(block.said.split()) > 3, "say why"
        return
    path = ROOT / block.said.partition(", ")[0]
    assert path.is_file(), f"{path} is not there"
    assert block.name in path.read_text("utf-8"), f"{path} does not name {block.name}"
    assert block.name, "say by which name the test finds it"


@pytest.mark.parametrize("page", sorted({one.page for one in COMMANDS if "-m venv" in one.text}))
def test_a_page_that_makes_an_environment_names_what_debian_lacks_for_it(page: str) -> None:
    """Debian's Python has no ensurepip, and a bare Debian has no curl."""
    text = (ROOT / page).read_text("utf-8")
    assert re.search(r"apt-get install .*\bpython3-venv\b.*\bcurl\b", text)


@pytest.mark.parametrize("block", [one for one in ALL if one.language == "text"], ids=str)
def test_what_is_shown_is_compared_or_is_no_output(block: Block) -> None:
    """By the test of the commands above it, as a command's --help, or the page's source says what it is."""
    lines = (ROOT / block.page).read_text("utf-8").splitlines()[: block.line - 1]
    above = next(line for line in reversed(lines) if line.strip())
    assert block.mark or above.startswith("<!-- help: ")


def test_no_two_blocks_have_one_name() -> None:
    """A test would find another one than it means; a whole page has one name."""
    pages: dict[tuple[str, str], set[str]] = {}
    for block in COMMANDS:
        if block.mark == "run" and block.said.startswith("tests/"):
            pages.setdefault((block.said, block.name), set()).add(block.page)
    assert [said for (said, _), where in pages.items() if len(where) > 1] == []
