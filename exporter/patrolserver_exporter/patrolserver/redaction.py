"""Takes credentials out of text, in every way to write them."""

from __future__ import annotations

import logging
import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MASK = "***"

_PLAIN_RUN = re.compile(r"[A-Za-z0-9]+")
# The name may follow an encoded question mark; the equals sign may be encoded, even twice. With a plain equals sign the
# value ends where a query's would; with an encoded one nobody knows the depth, so rather too much is masked.
_PARAMETER = re.compile(
    r"""(?P<name>(?:(?<![a-z])|(?<=3f))(?:key|secret)(?:=|%(?:25)*3d))[^&\s"'<>#]*""",
    re.IGNORECASE,
)


def redact(text: str, secrets: Iterable[str]) -> str:
    """Mask every secret, raw or percent-encoded, and the value of every ``key=`` and ``secret=`` parameter.

    Redacting twice changes nothing.
    """
    known = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
    if known:
        # What is masked already goes first, so that a secret of a mask's own characters cannot grow it.
        pattern = "|".join([re.escape(MASK), *map(_spellings, known)])
        text = re.sub(pattern, MASK, text)
    return _PARAMETER.sub(rf"\g<name>{MASK}", text)


def may_hold(body: bytes, secrets: Iterable[str]) -> bool:
    """Whether redacting a reply could change it: cheap, and rather once too often.

    However a secret is spelled, its plain letters are as they are, or its first one is escaped.
    """
    lowered = body.lower()
    if b"key=" in lowered or b"secret=" in lowered or b"%3d" in lowered or b"%253d" in lowered:
        return True
    return any(sign in lowered for secret in secrets if secret for sign in _signs_of(secret))


def _signs_of(secret: str) -> tuple[bytes, ...]:
    plain = max(_PLAIN_RUN.findall(secret), key=len, default="").lower()
    if not plain:
        return (b"%", b"\\u", secret.lower().encode("utf-8", "surrogatepass"))
    code = f"{ord(plain[0]):02x}", f"{ord(plain[0].upper()):02x}"
    return (plain.encode(), *(sign.encode() for one in code for sign in (f"%{one}", f"%25{one}", f"\\u00{one}")))


def _spellings(secret: str) -> str:
    """A pattern for the secret with any of its characters percent-encoded, once or twice."""
    return "".join(map(_spelling, secret))


def _spelling(character: str) -> str:
    encoded = "".join(rf"%(?:25)*(?i:{byte:02x})" for byte in character.encode("utf-8", "surrogatepass"))
    ways = [re.escape(character), encoded]
    if character == " ":
        ways.append(r"\+")
    if character in '/"\\':  # as JSON escapes them
        ways.append(r"\\" + re.escape(character))
    # As JSON may escape any; PHP does so with all that is not ASCII.
    units = character.encode("utf-16-be", "surrogatepass")
    ways.append("".join(rf"\\u(?i:{units[i : i + 2].hex()})" for i in range(0, len(units), 2)))
    return f"(?:{'|'.join(ways)})"


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
