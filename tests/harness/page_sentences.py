"""The code that stands within sentences of README, docs, runbooks and CHANGELOG."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.harness.page_blocks import PAGES, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

_PAGES: Final = (*PAGES, *(ROOT / page for page in ("SECURITY.md", "CHANGELOG.md", "grafana/runbooks.md")))
_FENCED = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
_SETTING = re.compile(r"[A-Z_]+=")


class Said(NamedTuple):
    """A command in a sentence."""

    page: str
    line: int
    text: str

    @property
    def words(self) -> list[str]:
        """As a shell takes it apart, without settings of the environment before it."""
        words = shlex.split(self.text)
        while words and _SETTING.match(words[0]):
            words.pop(0)
        return words

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def _inline_code() -> Iterator[Said]:
    """All code that stands in sentences, each on one line."""
    for page in _PAGES:
        text = _FENCED.sub(lambda fenced: "\n" * fenced[0].count("\n"), page.read_text("utf-8"))
        for found in _CODE.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            yield Said(str(page.relative_to(ROOT)), line, " ".join(found[2].split()))


def begins(said: Said, *programs: str) -> bool:
    """Whether its program is one of these, and something is said to it."""
    try:
        words = said.words
    except ValueError:
        return False
    return len(words) > 1 and words[0] in programs


SAID: Final = tuple({said.text: said for said in _inline_code()}.values())
"""Each once."""
