from __future__ import annotations

import io
import re
import subprocess
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = "docs/patrolserver-api.md"
GRADE = re.compile(r"\((?:D|C|\?)(?:, ?(?:D|C|\?))*\)")
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s#]*)(?:#([^)\s]+))?\)")
CITED = re.compile(r"(?<![\w/.-])docs/[\w./-]+\.md")


def tracked(*endings: str) -> list[Path]:
    command = ["git", "ls-files", "-z", *(f"*{end}" for end in endings)]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    return [path for name in names.stdout.decode().split("\0") if name and (path := ROOT / name).is_file()]


def prose(source: str) -> str:
    """Docstrings and comments of a module."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return "\n".join(
        token.string
        for token in tokens
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and '"""' in token.string[:5])
    )


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", tracked(".md"), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Each link within the repository leads to a file, and to a heading that is there."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target, anchor in LINK.findall(text):
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), f"{target} is not there"
        assert not anchor or there.suffix != ".md" or anchor in anchors(there), f"{target} has no #{anchor}"


def test_a_module_with_a_grade_names_its_page() -> None:
    """A module whose docstrings or comments carry a grade such as (C) says which page explains it."""
    folders = ("exporter", "tests", "grafana")
    modules = [path for path in tracked(".py") if path.relative_to(ROOT).parts[0] in folders]
    # Most have none anywhere, and need not be taken apart.
    texts = {path: text for path in modules if path != Path(__file__) and GRADE.search(text := path.read_text())}
    told = [path for path, text in texts.items() if GRADE.search(prose(text))]
    assert told, "grades are no longer cited like that; adapt this test"
    assert [str(path.relative_to(ROOT)) for path in told if PAGE not in texts[path]] == []


def test_no_module_cites_a_page_that_is_not_there() -> None:
    """Each ``docs/….md`` that a docstring or comment names is in the repository."""
    for path in tracked(".py"):
        text = path.read_text()
        for name in CITED.findall(prose(text)) if CITED.search(text) else ():
            assert (ROOT / name).is_file(), f"{path.relative_to(ROOT)} cites {name}"
