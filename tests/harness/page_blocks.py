"""The blocks of commands in README and docs, each with the word that says which test runs it, or why none can.

In a page's source stands above each block one of

    <!-- run: PATH, NAME -->     the test or script at PATH runs it; a test finds it by that name
    <!-- not run: REASON -->     why it cannot be run here

A mark above the first heading is that of all blocks of the page that have none of their own.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
_OF_THE_COLLECTION: Final = ("README.md", "roles/exporter/README.md")
PAGES: Final = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / "ansible_collection" / page for page in _OF_THE_COLLECTION),
)
SHELL: Final = frozenset({"sh", "console", "bash", "shell"})
_MARK = re.compile(r"^ *<!-- (run|not run): (.+?) -->$")
_FENCE = re.compile(r"^( *)```(.*)$")


@dataclass(frozen=True, slots=True)
class Block:
    """What stands between two fences. ``mark`` is ``run``, ``not run`` or empty, ``said`` what follows the mark."""

    page: str
    line: int
    language: str
    text: str
    mark: str
    said: str

    @property
    def name(self) -> str:
        """By which a test finds it."""
        return self.said.partition(", ")[2]

    @property
    def commands(self) -> str:
        """What is typed: without prompts."""
        return re.sub(r"^\$ ", "", self.text, flags=re.MULTILINE)

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """All blocks of a page, in order."""
    found: list[Block] = []
    of_page = mark = ("", "")
    begun: tuple[int, str, str] | None = None
    lines: list[str] = []
    titled = False
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if fence := _FENCE.match(line):
            indent, language = fence.groups()
            if begun is None:
                begun, lines = (number, indent, language), []
            else:
                begun_at, indent, language = begun
                text = "".join(f"{one.removeprefix(indent)}\n" for one in lines)
                name = str(page.relative_to(ROOT))
                found.append(Block(name, begun_at, language, text, *(mark if mark[0] else of_page)))
                begun, mark = None, ("", "")
        elif begun is not None:
            lines.append(line)
        elif told := _MARK.match(line):
            mark = (told[1], told[2])
            if not titled:
                of_page, mark = mark, ("", "")
        elif line.strip():
            titled, mark = True, ("", "")
    return found


def block(name: str) -> Block:
    """The one block of that name, in whatever page."""
    (found,) = (one for page in PAGES for one in blocks(page) if one.mark == "run" and one.name == name)
    return found


def checkout(target: Path) -> Path:
    """What git knows of the project, as a newcomer clones it."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target
