"""Have msgspec know all structs before there are threads.

It looks at the fields of a struct when one is decoded for the first time, and a second thread that decodes one
meanwhile finds half of what it needs: msgspec 0.22 then ends the process with a segmentation fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator


def prepare_structs() -> frozenset[type[msgspec.Struct]]:
    """Have msgspec look at the fields of each struct that is defined by now; returns those that can be decoded."""
    prepared = set()
    for kind in _all_below(msgspec.Struct):
        try:
            msgspec.json.Decoder(kind)
        except (TypeError, NameError):
            # It has fields that only the type checker knows, or that no JSON holds: nothing decodes it.
            continue
        prepared.add(kind)
    return frozenset(prepared)


def _all_below(kind: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    for below in kind.__subclasses__():
        yield below
        yield from _all_below(below)
