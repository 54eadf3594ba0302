"""Globs on names, the same everywhere: in the configuration, in requests, in filters.

``*``, ``?`` and ``[…]`` mean what they mean in a shell; capitals and small letters are alike. A name always matches
itself, also one with a glob's characters in it, like ``[2001:db8::1]`` or ``lib[foo]``.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def matches(glob: str, name: str) -> bool:
    """Whether the glob chooses that name."""
    return glob == name or _matcher(glob)(name)


def any_matches(globs: Iterable[str], name: str) -> bool:
    """Whether one of the globs chooses that name."""
    return any(matches(glob, name) for glob in globs)


def literally(name: str) -> str:
    """A glob that chooses this name alone."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


LIKE_ESCAPE = "|"
_FOLDED_WITH_OTHERS = frozenset("iksIKS")
"""Letters that are like one beyond ASCII where capitals are like small letters."""


def like(glob: str) -> str:
    """A pattern of SQLite's LIKE that chooses all that the glob does, and perhaps more.

    It escapes with `LIKE_ESCAPE`. SQLite, to which capitals and small letters of ASCII are alike, looks through a large
    fleet many times faster than this module.
    """
    pattern = []
    for sign in glob.partition("[")[0]:
        if sign == "*":
            pattern.append("%")
        elif sign == "?" or not sign.isascii() or sign in _FOLDED_WITH_OTHERS:
            pattern.append("_")
        else:
            pattern.append(LIKE_ESCAPE + sign if sign in {"%", "_", LIKE_ESCAPE} else sign.lower())
    return "".join(pattern) + ("%" if "[" in glob else "")


_SURE = re.compile(r"[A-HJLM-RT-Za-hjlm-rt-z0-9.:/@+_ -]+")
"""Letters that JSON writes as they are, and that are like no letter beyond ASCII."""


@functools.lru_cache(maxsize=4096)
def sure_part(glob: str) -> bytes:
    """The longest text that stands, in small letters, in the JSON of each name that the glob chooses; may be empty."""
    parts = _SURE.findall(glob.partition("[")[0])
    return max(parts, key=len, default="").lower().encode()


@functools.lru_cache(maxsize=4096)
def _matcher(glob: str) -> Callable[[str], bool]:
    match = re.compile(fnmatch.translate(glob), re.IGNORECASE).match
    literal = glob.lower()
    return lambda name: match(name) is not None or name.lower() == literal
