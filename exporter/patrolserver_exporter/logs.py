"""Logging: logfmt or JSON lines to stderr, through the standard library, with every secret masked.

redactor = setup_logging("info", "logfmt")
redactor.register(*hidden_values(config))
logging.getLogger(__name__).info("polled", extra=log_fields(account="main", servers=12))
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Final, Literal, TextIO

from patrolserver_exporter.redaction import MASK, MIN_MASKED, mask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

Field = str | int | float | bool | None
LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
FORMATS: Final = ("logfmt", "json")

# Level of the libraries' loggers at our debug, and otherwise. SQLAlchemy would log parameters, so it never does;
# APScheduler tells of each tick, four times a second, and warns of each that waits for a slow one, as it should do.
_LIBRARIES: Final = {
    "alembic": (logging.INFO, logging.WARNING),
    "apscheduler": (logging.WARNING, logging.ERROR),
    "asyncio": (logging.INFO, logging.WARNING),
    "requests": (logging.DEBUG, logging.WARNING),
    "sqlalchemy": (logging.WARNING, logging.WARNING),
    "urllib3": (logging.DEBUG, logging.ERROR),
    "uvicorn": (logging.INFO, logging.WARNING),
    "uvicorn.access": (logging.INFO, logging.WARNING),
    "uvicorn.asgi": (logging.INFO, logging.WARNING),
    "uvicorn.error": (logging.INFO, logging.WARNING),
}
_RESERVED: Final = frozenset({"ts", "level", "logger", "msg", "exc"})
_BARE: Final = re.compile(r"[^\s\"=\\]+")
_NOT_A_NAME: Final = re.compile(r"[^A-Za-z0-9_.]")

_QUOTE: Final = r"""\\?["']"""
# Every repetition that may begin at each place of a long line is bounded, so that no line takes quadratic time.
_RULES: Final = (
    # Parameters of a URL or a form, also percent-encoded within another URL.
    (r"((?:[?&;]|%3F|%26)(?:key|secret|token|password)(?:=|%3D))(?:(?!%26)[^\s&\"'<>\\])*", rf"\1{MASK}"),
    (r"(?<![\w.\-])(key=)[^\s&\"'<>\\]{0,512}(&(?:amp;)?secret=)[^\s&\"'<>\\]*", rf"\1{MASK}\2{MASK}"),
    (r"(?<![\w.\-])(secret=)[^\s&\"'<>\\]{0,512}(&(?:amp;)?key=)[^\s&\"'<>\\]*", rf"\1{MASK}\2{MASK}"),
    # The same as a dictionary, in Python or JSON.
    (rf"({_QUOTE}(?:secret|password){_QUOTE}\s*:\s*({_QUOTE}))(?:[^\\]|\\.){{0,1024}}?(?=\2)", rf"\1{MASK}"),
    (rf"({_QUOTE}key{_QUOTE}\s*:\s*({_QUOTE}))(?:[^\\]|\\.){{0,1024}}?(?=\2,\s*{_QUOTE}secret)", rf"\1{MASK}"),
    (r"(:\/\/[^\s:@/\"']{0,255}):[^\s\"']{0,1024}@", rf"\1:{MASK}@"),
    (r"(/webhook/)[^\s/?\"'\\]+", rf"\1{MASK}"),
    (rf"(authorization(?:{_QUOTE})?\s*[:=]\s*(?:{_QUOTE})?(?:bearer|basic)\s+)[^\s\"'\\,]+", rf"\1{MASK}"),
)
_PATTERNS: Final = tuple((re.compile(pattern, re.IGNORECASE), mask) for pattern, mask in _RULES)


def log_fields(**fields: Field) -> dict[str, dict[str, Field]]:
    """Return the ``extra`` that adds these fields to a line."""
    return {"fields": fields}


class Redactor:
    """Masks secrets in text: the known ones, and everything that stands where secrets stand. Threads may share it."""

    def __init__(self, *values: str) -> None:
        self._lock = threading.Lock()
        self._known: frozenset[str] = frozenset()
        self.register(*values)

    def register(self, *values: str) -> None:
        """Mask these from now on, however they are spelled. Earlier ones stay masked."""
        with self._lock:
            self._known |= {value for value in values if len(value) >= MIN_MASKED}

    def known(self) -> frozenset[str]:
        """What is masked because it was registered."""
        return self._known

    def redact(self, text: str) -> str:
        """Return the text with every secret masked."""
        text = mask(text, self._known)
        for pattern, masked in _PATTERNS:
            text = pattern.sub(masked, text)
        return text


class LineFormatter(logging.Formatter):
    """Writes a record as one redacted line of logfmt or JSON."""

    def __init__(self, layout: Literal["logfmt", "json"], redactor: Redactor) -> None:
        super().__init__()
        self._write: Callable[[Mapping[str, Field]], str] = _json if layout == "json" else _logfmt
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. It never fails: a note replaces what cannot be written."""
        # Redacted twice: before escaping, which may cut a secret's form, and after, as a last look at the line.
        fields = {key: self._clean(value) for key, value in _fields_of(record)}
        return self._redactor.redact(self._write(fields))

    def _clean(self, value: object) -> Field:
        if value is None or isinstance(value, bool):
            return value
        text = _text(value)
        clean = self._redactor.redact(text)
        is_number = isinstance(value, int) or (isinstance(value, float) and abs(value) < float("inf"))
        return value if is_number and clean == text else clean  # type: ignore[return-value]  # int or float, as checked


class StderrHandler(logging.StreamHandler[TextIO]):
    """The handler that `setup_logging` installs; it never prints a record that it could not format."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say only that a line is missing: the standard library would print the arguments, secrets among them."""
        kind = sys.exc_info()[0]
        if kind is None or issubclass(kind, BrokenPipeError):
            return
        name = json.dumps(record.name)
        line = f'level=error logger={name} msg="a log line could not be written" error={kind.__name__}\n'
        try:
            self.stream.write(line)
            self.flush()
        except (OSError, ValueError):
            # Nowhere left to write to.
            return


def setup_logging(
    level: str,
    format: str,  # noqa: A002 - named as its flag, --log.format
    stream: TextIO | None = None,
    redactor: Redactor | None = None,
) -> Redactor:
    """Send every logger's lines to stderr, or the stream, and return what masks secrets in them.

    Levels are debug, info, warn and error; formats are logfmt and json; others raise `ValueError`. May be called again:
    it replaces its own handler only. Start uvicorn with ``log_config=None``, so that it keeps to this.
    """
    if level not in LEVELS:
        raise ValueError(f"log level {level!r} is unknown; use one of {', '.join(LEVELS)}")
    if format not in FORMATS:
        raise ValueError(f"log format {format!r} is unknown; use one of {', '.join(FORMATS)}")
    redactor = redactor or Redactor()
    handler = StderrHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(LineFormatter("json" if format == "json" else "logfmt", redactor))
    root = logging.getLogger()
    for old in [one for one in root.handlers if isinstance(one, StderrHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(LEVELS[level])
    logging.captureWarnings(capture=True)
    for name, (at_debug, otherwise) in _LIBRARIES.items():
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(max(LEVELS[level], at_debug if level == "debug" else otherwise))
    return redactor


def log_uncaught_exceptions() -> None:
    """Log what would otherwise be printed as a traceback, secrets and all: in the main thread and in others."""
    log = logging.getLogger("patrolserver_exporter")

    def main_hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
        else:
            log.critical("uncaught exception", exc_info=(kind, error, trace))

    def thread_hook(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
            info = (args.exc_type, args.exc_value, args.exc_traceback)
            name = args.thread.name if args.thread else None
            log.critical("uncaught exception in a thread", exc_info=info, extra=log_fields(thread=name))

    sys.excepthook = main_hook
    threading.excepthook = thread_hook


def _fields_of(record: logging.LogRecord) -> Iterator[tuple[str, object]]:
    moment = dt.datetime.fromtimestamp(record.created, dt.UTC)
    yield "ts", moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
    yield "level", _level(record.levelno)
    yield "logger", record.name
    yield "msg", _message(record)
    fields = getattr(record, "fields", None)
    for key, value in (fields if isinstance(fields, dict) else {}).items():
        name = _NOT_A_NAME.sub("_", str(key)) or "_"
        yield (f"{name}_" if name in _RESERVED else name), value
    if record.exc_info and record.exc_info[0] is not None:
        yield "exc", "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
    if record.stack_info:
        yield "stack", record.stack_info


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError, IndexError):
        return f"{_text(record.msg)} (its arguments do not fit)"


def _level(number: int) -> str:
    return next((name for name, least in reversed(LEVELS.items()) if number >= least), "debug")


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - a foreign __str__ may raise anything; the line tells of it
        return f"({type(value).__name__} that cannot be shown: {type(error).__name__})"


def _json(fields: Mapping[str, Field]) -> str:
    return json.dumps(fields, separators=(",", ":"))


def _logfmt(fields: Mapping[str, Field]) -> str:
    return " ".join(f"{key}={_logfmt_value(value)}" for key, value in fields.items())


def _logfmt_value(value: Field) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    text = str(value)
    escaped = _escaped(text)
    return text if escaped == text and _BARE.fullmatch(text) else f'"{escaped}"'


_SHORT_ESCAPES: Final = {"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"}


def _escaped(text: str) -> str:
    """Escape what would end the line, the value, or the reader's trust in what the terminal shows."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(_SHORT_ESCAPES.get(char) or (char if char.isprintable() else _code(char)) for char in text)


def _code(char: str) -> str:
    number = ord(char)
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"
