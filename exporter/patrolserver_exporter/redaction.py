"""Takes secrets out of text, however they are spelled.

A spelling is undone one layer at a time, and the secrets are looked for in each: percent-encoding, the escapes of JSON,
Python and PHP, the entities of HTML, and base64 or hexadecimal digits within them. What is found is masked where it
stands in the original.
"""

from __future__ import annotations

import base64
import html
import json
import logging
import re
from bisect import bisect_right
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, quote_plus, unquote, unquote_plus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MASK: Final = "***"
MIN_MASKED: Final = 8
"""Shorter secrets are masked only where a parameter's name tells them: ``demo`` is also a word."""

_URL_SECRET = re.compile(
    r"(?<=[?&])(?P<name>[^=&#]*(?:passw|passphrase|secret)[^=&#]*=)(?P<value>[^&#]+)", re.IGNORECASE
)

_LAYERS = 4
_MIN_RUN = 6
_BASE64 = re.compile(rb"[A-Za-z0-9+/=_-]+")
_HEX = re.compile(rb"[0-9a-f]{2,}")
_PLAIN_RUN = re.compile(rb"[a-z0-9]+")
_ESCAPE = re.compile(
    rb"%(?P<percent>[0-9a-fA-F]{2})"
    rb"|%u(?P<percent_u>[0-9a-fA-F]{4})"
    rb"|\\(?:u(?P<high>[dD][89abAB][0-9a-fA-F]{2})\\u(?P<low>[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|u(?P<unit>[0-9a-fA-F]{4})|u\{(?P<braced>[0-9a-fA-F]{1,6})\}|U(?P<wide>[0-9a-fA-F]{8})"
    rb"|x(?P<byte>[0-9a-fA-F]{2})|(?P<short>[!-/:-@\[-`{-~bfnrtvae]))"
    rb"|&(?P<entity>\#[0-9]{1,8}|\#[xX][0-9a-fA-F]{1,7}|amp|lt|gt|quot|apos|nbsp|plus|equals|sol|percnt|num);?"
)
_SHORT: Final = dict(zip(b"abefnrtv", (b"\a", b"\b", b"\x1b", b"\f", b"\n", b"\r", b"\t", b"\v"), strict=True))
# A letter or a digit that is escaped, in any of the ways above: it may split a secret that would be seen otherwise.
# Each pattern begins with its one sign, which is what makes it quick to look for.
_HIDDEN_LETTERS = (
    re.compile(rb"%(?:25)*(?:3[0-9]|[46][1-9a-fA-F]|[57][0-9aA]|u00)"),
    re.compile(rb"\\(?:u(?:00(?:3[0-9]|[46][1-9a-fA-F]|[57][0-9aA])|\{)|U|x)"),
    re.compile(rb"&#"),
)
_BASE64_LINES = (
    re.compile(rb"\\[rn](?<=[A-Za-z0-9+/_-]{16}\\[rn])"),
    re.compile(rb"\n(?<=[A-Za-z0-9+/_-]{16}\n)"),
    re.compile(rb"\r(?<=[A-Za-z0-9+/_-]{16}\r)"),
)
_BREAK = re.compile(rb"(?<=[A-Za-z0-9+/_-])[ \t]*[\r\n]+[ \t]*(?=[A-Za-z0-9+/=_-])")
# The name may follow an encoded question mark; the equals sign may be encoded, even twice. With a plain equals sign the
# value ends where a query's would; with an encoded one nobody knows the depth, so rather too much is masked.
_PARAMETER = re.compile(
    r"""(?P<name>(?:(?<![a-z])|(?<=3f))(?:key|secret)(?:=|%(?:25)*3d|\\{1,8}u003d|&#(?:61|x3d);))[^&\s"'<>#]*""",
    re.IGNORECASE,
)


def secret_parameters(url: str) -> tuple[str, ...]:
    """The values of a database URL's parameters whose names tell that they are secret, as ``sslpassword``."""
    return tuple(found["value"] for found in _URL_SECRET.finditer(url))


def mask_parameters(url: str, mask: str = MASK) -> str:
    """The URL without them."""
    return _URL_SECRET.sub(lambda found: f"{found['name']}{mask}", url)


def redact(text: str, secrets: Iterable[str]) -> str:
    """Mask every secret in whatever spelling, and the value of every ``key=`` and ``secret=`` parameter.

    Redacting twice changes nothing, as long as no secret holds an asterisk.
    """
    lowered = text.lower()
    text = mask(text, secrets)
    if "key" not in lowered and "secret" not in lowered:
        return text
    return _PARAMETER.sub(rf"\g<name>{MASK}", text)


def mask(text: str, secrets: Iterable[str]) -> str:
    """Mask every secret, and nothing else."""
    known = _known(frozenset(secrets))
    data = text.encode("utf-8", "surrogatepass")
    spans = known.spans(data)
    if not spans:
        return text
    kept, end = [], 0
    for first, last in spans:
        kept += [data[end:first], MASK.encode()]
        end = last
    masked = b"".join([*kept, data[end:]])
    try:
        return masked.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:  # A cut within a character, which only a secret in another encoding brings about.
        return masked.decode("utf-8", "replace")


def redact_document(value: Any, secrets: Iterable[str]) -> Any:
    """Decoded JSON with every text redacted, names too; a number that holds a secret becomes a masked text."""
    hidden = frozenset(secrets)

    def walk(inner: Any) -> Any:
        if isinstance(inner, str):
            return redact(inner, hidden)
        if isinstance(inner, list):
            return [walk(one) for one in inner]
        if isinstance(inner, dict):
            return {redact(name, hidden): walk(one) for name, one in inner.items()}
        if isinstance(inner, int | float) and not isinstance(inner, bool):
            return inner if (masked := mask(_digits(inner), hidden)) == _digits(inner) else masked
        return inner

    return walk(value)


def _digits(number: float) -> str:
    try:
        return str(number)
    except ValueError:  # Python refuses to write out ints of thousands of digits.
        return hex(number)  # type: ignore[arg-type]  # Only an int raises it.


def may_hold(body: bytes, secrets: Iterable[str]) -> bool:
    """Whether redacting a reply could change it: cheap, and rather once too often."""
    lowered = body.lower()
    if b"key=" in lowered or b"secret=" in lowered or b"%3d" in lowered or b"%253d" in lowered:
        return True
    if b"\\u003d" in lowered or b"&#" in lowered:
        return True
    return _known(frozenset(secrets)).may_be_in(body, lowered)


@lru_cache(maxsize=64)
def _known(secrets: frozenset[str]) -> _Known:
    return _Known(secret for secret in secrets if secret.strip("*") or len(secret) >= MIN_MASKED)


class _Known:
    """Some secrets, and what to look for to find them."""

    def __init__(self, secrets: Iterable[str]) -> None:
        needles: set[bytes] = set()
        signs: set[bytes] = set()
        encoded: set[bytes] = set()
        in_hex: set[bytes] = set()
        self._is_plain = True
        for secret in secrets:
            raw = _bytes(secret)
            # Written with plus signs for blanks, or read as if its own signs were an encoding.
            spelled = {secret, secret.upper(), secret.replace(" ", "+")}
            spelled |= {read for read in (unquote(secret), unquote_plus(secret)) if len(read) >= MIN_MASKED}
            # Undone, the escapes of JSON and Python go together with what is no encoding in it.
            in_json = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
            spelled |= in_json | {one.replace("/", r"\/") for one in in_json} | {repr(secret)[1:-1]}
            needles |= {_bytes(one).lower() for one in spelled}
            needles |= {secret.encode("latin-1").lower()} if _is_latin(secret) else set()
            run = max(_PLAIN_RUN.findall(raw.lower()), key=len, default=b"")
            self._is_plain &= len(run) >= _MIN_RUN and all(run in _bytes(one).lower() for one in spelled)
            signs.add(run)
            if len(raw) >= _MIN_RUN:
                place = raw.lower().find(run)
                plain = raw[place : place + len(run)]
                for form in (plain,) if len(run) >= _MIN_RUN else _encoded_forms(secret):
                    encoded.update(_base64_cores(form))
                in_hex |= {(plain if len(run) >= _MIN_RUN else raw).hex().encode()}
        self._needles = tuple(sorted(needles - {b""}, key=len, reverse=True))
        self._signs = tuple(signs - {b""})
        self._encoded = tuple(encoded)
        """In base64, ..."""
        self._in_hex = tuple(in_hex)
        """... and two digits for each byte."""

    def may_be_in(self, body: bytes, lowered: bytes) -> bool:
        """Whether one may be there, in whatever spelling."""
        if not self._needles:
            return False
        if not self._is_plain or any(pattern.search(body) for pattern in (*_HIDDEN_LETTERS, *_BASE64_LINES)):
            return True
        return self._is_in(body, lowered, self._signs)

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Where they are, in order and apart."""
        if not self._needles or not (self._escapes(data) or self._is_as_it_is(data)):
            return []
        found = self._spans_within(data, _meaning)
        if b"\\x" in data:
            found += self._spans_within(data, _meaning_in_python)
        return _joined(found)

    def _spans_within(self, data: bytes, meaning: Callable[[re.Match[bytes]], bytes]) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        layers: list[_Layer] = []
        inner = data
        for depth in range(_LAYERS + 1):
            found += [_outward(span, layers) for span in self._spans_in(inner)]
            layer = _undo(inner, meaning) if depth < _LAYERS else None
            if layer is None:
                break
            layers.append(layer)
            inner = layer.data
        layer = _undo_breaks(inner)
        if layer is not None:
            found += [_outward(span, [*layers, layer]) for span in self._spans_in(layer.data)]
        return found

    @staticmethod
    def _escapes(data: bytes) -> bool:
        return b"%" in data or b"\\" in data or b"&" in data or b"\n" in data or b"\r" in data

    def _is_as_it_is(self, data: bytes) -> bool:
        lowered = data.lower()
        return self._is_in(data, lowered, self._needles)

    def _is_in(self, data: bytes, lowered: bytes, signs: tuple[bytes, ...]) -> bool:
        return (
            any(sign in lowered for sign in signs)
            or any(core in data for core in self._encoded)
            or any(core in lowered for core in self._in_hex)
        )

    def _spans_in(self, data: bytes) -> Iterator[tuple[int, int]]:
        lowered = data.lower()
        for needle in self._needles:
            place = lowered.find(needle)
            while place >= 0:
                yield place, place + len(needle)
                place = lowered.find(needle, place + 1)
        if any(core in data for core in self._encoded):
            for run in _BASE64.finditer(data):
                if any(core in run[0] for core in self._encoded):
                    yield run.span()
        if any(core in lowered for core in self._in_hex):
            for run in _HEX.finditer(lowered):
                if any(core in run[0] for core in self._in_hex):
                    yield run.span()


class _Layer:
    """What a text means, and which part of the text each part comes from."""

    def __init__(self, parts: list[tuple[int, int, bytes]]) -> None:
        self.data = b""
        self._inner: list[int] = []
        """Where each part begins here, ..."""
        self._outer: list[tuple[int, int]] = []
        """... and where in the text it begins and ends."""
        joined, size = [], 0
        for first, last, meaning in parts:
            self._inner.append(size)
            self._outer.append((first, last))
            joined.append(meaning)
            size += len(meaning)
        self.data = b"".join(joined)

    def outward(self, span: tuple[int, int]) -> tuple[int, int]:
        """The part of the text that a part of this comes from; an escape is taken whole."""
        return self._place(span[0])[0], self._place(span[1] - 1)[1]

    def _place(self, place: int) -> tuple[int, int]:
        index = bisect_right(self._inner, place) - 1
        first, last = self._outer[index]
        begins = self._inner[index]
        ends = self._inner[index + 1] if index + 1 < len(self._inner) else len(self.data)
        if last - first != ends - begins:
            return first, last
        return first + place - begins, first + place - begins + 1


def _undo(data: bytes, meaning: Callable[[re.Match[bytes]], bytes]) -> _Layer | None:
    """Read every escape once; None where there is none."""
    parts: list[tuple[int, int, bytes]] = []
    end = 0
    for match in _ESCAPE.finditer(data):
        if match.start() > end:
            parts.append((end, match.start(), data[end : match.start()]))
        end = match.end()
        parts.append((match.start(), end, meaning(match)))
    if not parts:
        return None
    if end < len(data):
        parts.append((end, len(data), data[end:]))
    return _Layer([part for part in parts if part[2]])


def _undo_breaks(data: bytes) -> _Layer | None:
    """Join the lines of what may be base64."""
    parts: list[tuple[int, int, bytes]] = []
    end = 0
    for match in _BREAK.finditer(data):
        parts.append((end, match.start(), data[end : match.start()]))
        end = match.end()
    if not parts:
        return None
    parts.append((end, len(data), data[end:]))
    return _Layer([part for part in parts if part[2]])


def _meaning(match: re.Match[bytes]) -> bytes:
    told = match.groupdict()
    if byte := told["percent"] or told["byte"]:
        return bytes([int(byte, 16)])
    if told["high"]:
        pair = bytes.fromhex((told["high"] + told["low"]).decode())
        return pair.decode("utf-16-be").encode()
    if short := told["short"]:
        return _SHORT.get(short[0], short)
    if entity := told["entity"]:
        return _bytes(html.unescape(f"&{entity.decode()};"))
    number = int(told["percent_u"] or told["unit"] or told["braced"] or told["wide"], 16)
    return _bytes(chr(number)) if number <= 0x10FFFF else match[0]


def _meaning_in_python(match: re.Match[bytes]) -> bytes:
    """In the ``repr`` of a text an escape of two digits is a character; in that of bytes it is a byte."""
    return _bytes(chr(int(byte, 16))) if (byte := match["byte"]) else _meaning(match)


def _outward(span: tuple[int, int], layers: list[_Layer]) -> tuple[int, int]:
    for layer in reversed(layers):
        span = layer.outward(span)
    return span


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if joined and first < joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], last)
        else:
            joined.append((first, last))
    return joined


def _encoded_forms(secret: str) -> set[bytes]:
    """What base64 may be made of, for a secret without a plain part that is the same in all."""
    encoded = quote(_bytes(secret), safe="")
    others = quote(_bytes(secret)), quote_plus(_bytes(secret)), json.dumps(secret)[1:-1]
    return {_bytes(form) for form in (secret, encoded, encoded.lower(), *others)}


def _base64_cores(plain: bytes) -> Iterator[bytes]:
    """The part of its base64 that is the same whatever stands around it, for each way to begin."""
    for before, skipped in ((0, 0), (1, 2), (2, 3)):
        whole = base64.b64encode(bytes(before) + plain)
        core = whole[skipped : (before + len(plain)) * 8 // 6]
        yield core
        yield core.translate(bytes.maketrans(b"+/", b"-_"))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _is_latin(text: str) -> bool:
    return not text.isascii() and all(ord(character) < 256 for character in text)


class _QueryFilter(logging.Filter):
    """Keeps queries out of urllib3's log lines: its DEBUG lines, and one warning, show the whole URL."""

    def filter(self, record: logging.LogRecord) -> bool:
        told, _, _ = record.getMessage().partition(", unparsed data:")  # which may echo anything
        record.msg = _QUERY.sub(rf"?{MASK}", redact(told, ()))
        record.args = None
        # The traceback repeats what the line says, with texts that never went through here.
        record.exc_info = None
        return True


_QUERY = re.compile(r"""\?[^\s"'<>]*""")

_URL_LOGGERS = ("urllib3.connection", "urllib3.connectionpool", "urllib3.poolmanager", "urllib3.util.retry")


@cache
def keep_urls_out_of_logs() -> None:
    """Install the filter on urllib3's own loggers, once; no other logger is touched, no level is changed."""
    query_filter = _QueryFilter()
    for name in _URL_LOGGERS:
        logging.getLogger(name).addFilter(query_filter)
