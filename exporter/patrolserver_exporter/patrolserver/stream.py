"""Large replies, decoded while they come: never more of them in memory than their entries as they were written.

Some kilobytes can unfold to millions of objects, each of which costs a hundred times what it has in bytes. So bytes,
entries and depth are bounded here, and a list's entries stay as they came until somebody looks at one of them.
What is decoded means the same as in one piece: nothing that tells of a part or a failure is lost.

The grades D, C and ? are those of docs/patrolserver-api.md.
"""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from patrolserver_exporter.patrolserver.errors import TooLarge, Unreadable
from patrolserver_exporter.patrolserver.values import decode, object_of, read_int, twins
from patrolserver_exporter.redaction import may_hold, redact, redact_document

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SMALL: Final = 128 * 1024
"""Bytes up to which a reply is decoded in one piece, and characters of a value that is no list."""
_MAX_ENTRY: Final = 256 * 1024
_MAX_BESIDE: Final = 1024 * 1024
"""Characters beside a reply's lists."""
_MAX_BLANK: Final = 64 * 1024
_SLICE: Final = 64 * 1024
_MAX_DEPTH: Final = 8
_MAX_MEMBERS: Final = 1_000
_BLANK: Final = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a list may have."""

    max_bytes: int
    """As they come, and unpacked."""
    max_entries: int
    lasts: bool = False
    """It may take as long as it makes progress."""


class Entries(list[Any]):
    """The entries of a list. What came as bytes is decoded, without the ``masked``, whenever it is looked at."""

    def __init__(self, entries: Iterable[Any] = (), masked: tuple[str, ...] = ()) -> None:
        super().__init__(entries)
        self._masked = masked

    def __iter__(self) -> Iterator[Any]:
        """Each, decoded."""
        return map(self._decoded, super().__iter__())

    def __getitem__(self, place: Any, /) -> Any:
        """One, or some of them, decoded."""
        found = super().__getitem__(place)
        return [self._decoded(one) for one in found] if isinstance(place, slice) else self._decoded(found)

    def _decoded(self, entry: Any) -> Any:
        if not isinstance(entry, bytes):
            return entry
        decoded = decode(entry)
        return redact_document(decoded, self._masked) if may_hold(entry, self._masked) else decoded


@dataclass(frozen=True, slots=True)
class Document:
    """A reply that was decoded while it came, without credentials."""

    value: Any
    beginning: bytes


def decode_pieces(
    pieces: Iterable[bytes], max_entries: int, masked: tuple[str, ...] = (), *, window: int = SMALL
) -> Document:
    """Decode a reply that comes in pieces, as leniently as one that comes at once.

    Values of fewer characters than ``window`` are decoded in one piece.

    Raises:
        TooLarge: it has more entries than that, or too much beside them.
        Unreadable: it is not JSON.
    """
    reader = _Reader(pieces, max_entries, masked, window)
    try:
        return Document(reader.document(), reader.beginning)
    except RecursionError:
        pass
    raise Unreadable("the reply is nested too deeply")


def _sliced(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces that are small: one that holds the whole reply would be decoded as one value."""
    for piece in pieces:
        for begin in range(0, len(piece), _SLICE):
            yield piece[begin : begin + _SLICE]


class _Reader:
    """Goes through a text that is read as far as it is needed."""

    def __init__(self, pieces: Iterable[bytes], max_entries: int, masked: tuple[str, ...], window: int) -> None:
        self._window = window
        self._pieces = _sliced(pieces)
        self._text_of = codecs.getincrementaldecoder("utf-8-sig")("replace").decode
        self._scan = json.JSONDecoder(strict=False, parse_int=read_int).raw_decode
        self._text = ""
        self._at = 0
        self._ended = False
        self._max_entries = max_entries
        self._entries = 0
        self._beside = 0
        self._masked = masked
        self.beginning = b""

    def document(self) -> Any:
        """The whole."""
        value = self._value(0)
        self._skip_blank()
        if self._at < len(self._text):
            raise self._broken()
        return value

    def _fill(self, most: int) -> None:
        """Have so many characters ahead, unless it ends before."""
        if self._ended or len(self._text) - self._at >= most:
            return
        parts, size = [self._text[self._at :]], len(self._text) - self._at
        while size < most + self._window // 2 and not self._ended:
            piece = next(self._pieces, b"")
            self._ended = not piece
            self.beginning = self.beginning or piece[:SMALL]
            part = self._text_of(piece, self._ended)
            parts.append(part)
            size += len(part)
        self._text, self._at = "".join(parts), 0

    def _skip_blank(self) -> None:
        self._fill(1)
        skipped = 0
        while True:
            found = _BLANK.match(self._text, self._at)
            end = found.end() if found else self._at
            skipped += end - self._at
            self._at = end
            if end < len(self._text) or self._ended:
                return
            if skipped > _MAX_BLANK:
                raise TooLarge(f"the reply has more than {_MAX_BLANK} blanks in a row")
            self._fill(1)

    def _peek(self) -> str:
        """The next character that is not blank; empty at the end."""
        self._skip_blank()
        return self._text[self._at : self._at + 1]

    def _try(self) -> tuple[Any, int] | None:
        """The value that begins here and where it ends, if all of it is there."""
        try:
            value, end = self._scan(self._text, self._at)
        except ValueError:
            return None
        # A number that ends with the text may go on.
        return (value, end) if end < len(self._text) or self._ended else None

    def _value(self, depth: int, *, is_beside: bool = True) -> Any:
        sign = self._peek()
        self._fill(self._window)
        found = self._try()
        if found is not None:
            value, end = found
            if sign in "{[":
                json.loads(self._text[self._at : end], strict=False, parse_int=read_int, object_pairs_hook=object_of)
            size, self._at = end - self._at, end
            self._count_beside(size if is_beside else 0)
            return redact_document(value, self._masked)
        if depth < _MAX_DEPTH and sign == "{":
            return self._object(depth)
        if depth < _MAX_DEPTH and sign == "[":
            return self._list()
        if sign and sign in '{["':
            raise TooLarge(f"the reply has a value of more than {self._window} characters")
        raise self._broken()

    def _object(self, depth: int) -> Any:
        """An object; what PHP makes of a long list is a list again."""
        self._at += 1
        members: dict[str, Any] = {}
        names: set[str] = set()
        entries: Entries | None = None
        sign = self._peek()
        while sign != "}":
            self._fill(self._window)
            found = self._try()
            if found is None or not isinstance(found[0], str):
                raise self._broken()
            name, end = found
            is_place = name.isdecimal()
            self._count_beside(0 if is_place else end - self._at)
            self._at = end
            if self._peek() != ":":
                raise self._broken()
            self._at += 1
            if entries is not None:
                if not is_place:
                    raise TooLarge(f"the reply has an object of more than {_MAX_MEMBERS} members")
                entries.append(self._entry())
            elif len(members) >= _MAX_MEMBERS and is_place and all(key.isdecimal() for key in members):
                entries = Entries(members.values(), self._masked)
                entries.append(self._entry())
            elif len(members) >= _MAX_MEMBERS:
                raise TooLarge(f"the reply has an object of more than {_MAX_MEMBERS} members")
            elif name in names:
                raise twins()
            else:
                names.add(name)
                members[redact(name, self._masked)] = self._value(depth + 1, is_beside=not is_place)
            sign = self._next("}")
        self._at += 1
        return members if entries is None else entries

    def _list(self) -> Entries:
        self._at += 1
        entries = Entries(masked=self._masked)
        sign = self._peek()
        while sign != "]":
            entries.append(self._entry())
            sign = self._next("]")
        self._at += 1
        return entries

    def _next(self, end: str) -> str:
        """Go to the next member or entry; the sign of the end if there is none."""
        sign = self._peek()
        if sign == ",":
            self._at += 1
            sign = self._peek()
            if sign == end:
                raise self._broken()
        elif sign != end:
            raise self._broken()
        return sign

    def _entry(self) -> bytes:
        self._skip_blank()
        self._entries += 1
        if self._entries > self._max_entries:
            raise TooLarge(f"the reply has more than {self._max_entries} entries")
        ahead = self._window // 2
        while True:
            self._fill(ahead)
            found = self._try()
            if found is not None:
                begin, self._at = self._at, found[1]
                return self._text[begin : self._at].encode("utf-8", "replace")
            if self._ended:
                raise self._broken()
            if ahead > _MAX_ENTRY:
                raise TooLarge(f"the reply has an entry of more than {_MAX_ENTRY} characters, or one that is broken")
            ahead = 4 * ahead + 1

    def _count_beside(self, size: int) -> None:
        self._beside += size
        if self._beside > _MAX_BESIDE:
            raise TooLarge(f"the reply has more than {_MAX_BESIDE} characters beside its entries")

    def _broken(self) -> Unreadable:
        if not self._text:
            return Unreadable("the reply is empty")
        is_html = self.beginning.lstrip().startswith(b"<")
        return Unreadable(f"the reply is {'HTML' if is_html else 'no whole JSON'}")
