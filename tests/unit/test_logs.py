from __future__ import annotations

import base64
import io
import json
import logging
import re
import sys
import threading
import time
import warnings
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from patrolserver_exporter.logs import (
    LineFormatter,
    Redactor,
    StderrHandler,
    log_fields,
    log_uncaught_exceptions,
    setup_logging,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CANARY = 'c4n4ry/+ &"\\é'
LIBRARIES = ("uvicorn.access", "uvicorn.error", "apscheduler.scheduler", "sqlalchemy.engine", "urllib3.connectionpool")


@pytest.fixture(autouse=True)
def _untouched_logging() -> Iterator[None]:
    """Give back the root logger, the hooks and the warnings as they were."""
    root = logging.getLogger()
    handlers, level, hooks = root.handlers[:], root.level, (sys.excepthook, threading.excepthook)
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(capture=False)


def record(message: object, *args: object, fields: Mapping[str, object] | None = None) -> logging.LogRecord:
    """Make a record as a logger would, with the exception that is being handled."""
    info = sys.exc_info() if sys.exc_info()[0] else None
    made = logging.LogRecord("patrolserver_exporter.ingest", logging.INFO, "x.py", 1, message, args, info)
    made.created = 1_800_000_000.5
    made.fields = fields
    return made


def line(
    message: object,
    *args: object,
    layout: str = "logfmt",
    redactor: Redactor | None = None,
    fields: Mapping[str, object] | None = None,
) -> str:
    """Return the line of a record."""
    formatter = LineFormatter("json" if layout == "json" else "logfmt", redactor or Redactor())
    return formatter.format(record(message, *args, fields=fields))


def fail(error: Exception) -> NoReturn:
    """Raise it."""
    raise error


def test_logfmt_line() -> None:
    """A line has the time in UTC with milliseconds, level, logger, message, then the fields."""
    assert line(
        "polled %s", "web1", fields={"account": "main", "servers": 12, "ok": True, "risk": 7.5, "gone": None}
    ) == (
        'ts=2027-01-15T08:00:00.500Z level=info logger=patrolserver_exporter.ingest msg="polled web1"'
        " account=main servers=12 ok=true risk=7.5 gone=null"
    )


def test_json_line() -> None:
    """The same line as JSON keeps numbers, booleans and null."""
    assert json.loads(line("polled", layout="json", fields={"servers": 12, "ok": True, "risk": 7.5, "gone": None})) == {
        "ts": "2027-01-15T08:00:00.500Z",
        "level": "info",
        "logger": "patrolserver_exporter.ingest",
        "msg": "polled",
        "servers": 12,
        "ok": True,
        "risk": 7.5,
        "gone": None,
    }


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "no"', r'"say \"no\""'),
        ("a\nlevel=error", r'"a\nlevel=error"'),
        ("\x1b[31mred\u202e\u2028\udc80\U000e0001", r'"\u001b[31mred\u202e\u2028\udc80\U000e0001"'),
        ("back\\slash", r'"back\\slash"'),
        (float("nan"), "nan"),
        ("grün", "grün"),
    ],
)
def test_logfmt_values(value: str | float, written: str) -> None:
    """Whatever could end a line or a value, or play tricks on a terminal, is escaped."""
    assert line("m", fields={"value": value}).partition(" value=")[2] == written


@given(st.text(), st.text(), st.dictionaries(st.text(), st.text()))
def test_one_record_is_one_line(message: str, value: str, fields: dict[str, str]) -> None:
    """No text of any origin makes a second line, in either format, and JSON stays JSON."""
    for layout in ("logfmt", "json"):
        written = line(message, layout=layout, fields={**fields, "value": value})
        assert len(written.splitlines()) == 1
        if layout == "json":
            assert isinstance(json.loads(written), dict)


def test_reserved_names() -> None:
    """A field cannot pass for the line's own level or time, whatever its name."""
    assert line("m", fields={"level": "error", "a b=c": "d"}).endswith(" level_=error a_b_c=d")


def test_stacks_are_one_field() -> None:
    """The stack that a caller asks for stays within its line."""
    stream = io.StringIO()
    setup_logging("info", "logfmt", stream)
    logging.getLogger("x").info("m", stack_info=True)
    assert ' stack="Stack (most recent call last):\\n' in stream.getvalue()
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize("layout", ["logfmt", "json"])
def test_exceptions_are_one_field(layout: str) -> None:
    """A traceback stays within its line, and is redacted."""
    redactor = Redactor(CANARY)
    try:
        fail(RuntimeError(f"GET /servers?key=demo&secret={quote(CANARY, safe='')} failed\nfor {CANARY}"))
    except RuntimeError:
        written = line("failed", layout=layout, redactor=redactor)
    assert "\n" not in written
    assert "Traceback" in written
    assert "RuntimeError: GET /servers?key=***&secret=*** failed\\nfor ***" in written


def test_arguments_that_do_not_fit() -> None:
    """A message whose arguments do not fit is written without them."""
    assert 'msg="%d servers (its arguments do not fit)"' in line("%d servers", "many")


def test_fields_that_cannot_be_shown() -> None:
    """An object whose text cannot be made is named by its type."""

    class Shy:
        def __str__(self) -> str:
            raise LookupError(CANARY)

    assert line("m", fields={"value": Shy()}).endswith('value="(Shy that cannot be shown: LookupError)"')


def every_form(value: str) -> list[str]:
    """Return how a value may look in a log."""
    encoded = quote(value, safe="")
    return [
        value,
        quote(value),
        encoded,
        re.sub("%..", lambda match: match.group().lower(), encoded),
        quote_plus(value),
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        json.dumps(value).replace("/", r"\/")[1:-1],
        repr(value)[1:-1],
        base64.b64encode(value.encode()).decode().rstrip("="),
    ]


@example("0000/%00")
@example("0000\b%00")
@given(st.text(min_size=8))
def test_registered_secrets_are_masked_in_every_form(secret: str) -> None:
    """A secret shows in no form: plain, percent-encoded, escaped or base64."""
    redactor = Redactor(secret)
    for form in every_form(secret):
        masked = redactor.redact(f"<{form}>")
        assert form not in masked
        assert "***" in masked


@pytest.mark.parametrize("layout", ["logfmt", "json"])
def test_registered_secrets_are_masked_wherever_they_enter(layout: str) -> None:
    """A secret shows neither in the message, nor in a field, nor in a mapping that is logged."""
    redactor = Redactor(CANARY)
    fields = {"url": f"https://h/?x={quote_plus(CANARY)}", "text": f"{CANARY}\n", "data": [CANARY]}
    written = line("m %s %s", {"token": CANARY}, CANARY, layout=layout, redactor=redactor, fields=fields)
    assert not [form for form in every_form(CANARY) if form in written]
    assert written.count("***") == 5


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("GET /servers?key=demo&secret=demo", "GET /servers?key=***&secret=***"),
        ("GET /servers?scope=status&key=demo HTTP/1.1", "GET /servers?scope=status&key=*** HTTP/1.1"),
        (
            "next=%2Fservers%3Fkey%3Ddemo%26secret%3Ddemo%26scope%3Dx",
            "next=%2Fservers%3Fkey%3D***%26secret%3D***%26scope%3Dx",
        ),
        ("body key=demo&secret=demo", "body key=***&secret=***"),
        ("body secret=demo&key=demo", "body secret=***&key=***"),
        ("<a href='/?key=demo&amp;secret=demo'>", "<a href='/?key=***&amp;secret=***'>"),
        ("{'key': 'demo', 'secret': 'demo'}", "{'key': '***', 'secret': '***'}"),
        ('{"key":"demo","secret":"demo"}', '{"key":"***","secret":"***"}'),
        ("postgresql+psycopg://user:p@ss/w0rd@db/x", "postgresql+psycopg://user:***@db/x"),
        ("proxy http://user:pass@proxy:3128", "proxy http://user:***@proxy:3128"),
        ("POST /webhook/abcdefgh HTTP/1.1", "POST /webhook/*** HTTP/1.1"),
        ("Authorization: Bearer abcdefgh", "Authorization: Bearer ***"),
        ("{'Authorization': 'Basic dTpw'}", "{'Authorization': 'Basic ***'}"),
    ],
)
def test_places_of_secrets_are_masked(text: str, masked: str) -> None:
    """Where a secret stands by its nature, it is masked unasked, even a short one, and only once."""
    assert Redactor().redact(text) == masked
    assert Redactor().redact(masked) == masked


@pytest.mark.parametrize(
    "text",
    [
        "the demo runs",
        "key=accounts[0].key",
        '{"key":"accounts[0].key","line":3}',
        "http://127.0.0.1:10058/metrics",
        "a: b@c",
    ],
)
def test_other_text_is_left_alone(text: str) -> None:
    """Short secrets do not take words out of the log, and keys that are no credentials stay readable."""
    assert Redactor("demo").redact(text) == text


def test_a_longer_secret_hides_whole() -> None:
    """Of two secrets, one the beginning of the other, no rest of the longer stays."""
    redactor = Redactor("abcdefgh")
    redactor.register("abcdefgh-and-more")
    assert redactor.redact("abcdefgh-and-more abcdefgh") == "*** ***"


@pytest.mark.parametrize(
    "part",
    ["key=", "?key=", "key=a&", "://a:", '"secret":"', "'key':'", "authorization: bearer ", "/webhook/", "\\", "a"],
)
def test_no_line_takes_forever(part: str) -> None:
    """Eight times as much of whatever the masks look for takes eight times as long, and not 64 times."""
    redactor = Redactor(CANARY)

    def seconds(length: int) -> float:
        started = time.process_time()
        redactor.redact(part * (length // len(part)))
        return time.process_time() - started

    assert min(seconds(40_000) for _ in range(3)) < 24 * min(seconds(5_000) for _ in range(5))


@pytest.mark.parametrize("text", ['{"secret":"a\\"b","x":"y"}', '{"x":"://u:\\"@","password":"\\\\"}'])
def test_masked_json_stays_json(text: str) -> None:
    """Masks respect the escapes of the JSON around them."""
    masked = json.loads(Redactor().redact(text))
    assert masked.get("secret", masked.get("password")) == "***"


def test_digits_that_are_a_secret() -> None:
    """A number that is a secret is masked, and the line stays JSON."""
    written = line("m", layout="json", redactor=Redactor("12345678"), fields={"pin": 12345678, "other": 1234})
    assert (json.loads(written)["pin"], json.loads(written)["other"]) == ("***", 1234)


def test_fields_travel_in_extra() -> None:
    """What `log_fields` returns is what a logger takes as ``extra``."""
    stream = io.StringIO()
    setup_logging("info", "logfmt", stream)
    logging.getLogger("x").info("m", extra=log_fields(account="main"))
    assert stream.getvalue().endswith("logger=x msg=m account=main\n")


def test_setup_writes_one_line_for_each_record() -> None:
    """After the set-up, records at or above the level are written; a second set-up does not double them."""
    setup_logging("debug", "json", io.StringIO())
    stream = io.StringIO()
    redactor = setup_logging("warn", "logfmt", stream)
    redactor.register(CANARY)
    log = logging.getLogger("patrolserver_exporter.test")
    log.info("unseen")
    log.warning("seen %s", CANARY)
    log.critical("worse")
    lines = stream.getvalue().splitlines()
    assert [text.partition(" ")[2] for text in lines] == [
        'level=warn logger=patrolserver_exporter.test msg="seen ***"',
        "level=error logger=patrolserver_exporter.test msg=worse",
    ]


@pytest.mark.parametrize(("level", "format"), [("trace", "logfmt"), ("info", "xml")])
def test_setup_refuses_what_it_does_not_know(level: str, format: str) -> None:  # noqa: A002 - the flag's name
    """Unknown levels and formats are refused with the known ones."""
    with pytest.raises(ValueError, match=r"is unknown; use one of (debug, info, warn, error|logfmt, json)"):
        setup_logging(level, format)


def test_libraries_are_quiet_and_routed() -> None:
    """Libraries log warnings through the same handler, and their chatter only at debug."""
    stream = io.StringIO()
    setup_logging("info", "logfmt", stream)
    for name in LIBRARIES:
        logging.getLogger(name).info("chatter")
        logging.getLogger(name).error("trouble")
    assert "chatter" not in stream.getvalue()
    assert stream.getvalue().count("msg=trouble") == len(LIBRARIES)


def test_a_tick_that_waits_for_a_slow_one_is_no_line() -> None:
    """What APScheduler tells of ticks, several lines a second, does not bury what matters; debug shows skipped ones."""
    for level, lines in (("info", 0), ("debug", 1)):
        stream = io.StringIO()
        setup_logging(level, "logfmt", stream)
        logging.getLogger("apscheduler.executors.default").info("Running job")
        logging.getLogger("apscheduler.scheduler").warning("Execution of job skipped")
        assert stream.getvalue().count("\n") == lines


def test_sqlalchemy_never_logs_parameters() -> None:
    """Even at debug, statements and their parameters stay out of the log."""
    stream = io.StringIO()
    setup_logging("debug", "logfmt", stream)
    logging.getLogger("sqlalchemy.engine.Engine").info("[generated] (%s)", CANARY)
    logging.getLogger("urllib3.connectionpool").debug('"GET /servers?key=demo&secret=demo HTTP/1.1"')
    assert stream.getvalue().count("\n") == 1
    assert "demo" not in stream.getvalue()


def test_warnings_are_logged() -> None:
    """Python's warnings become lines too."""
    stream = io.StringIO()
    with warnings.catch_warnings():
        setup_logging("info", "logfmt", stream)
        warnings.simplefilter("always")
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    assert "logger=py.warnings" in stream.getvalue()


def test_a_failing_line_shows_nothing_of_itself() -> None:
    """When a line cannot be formatted, only that is said: no arguments, no traceback."""
    stream = io.StringIO()
    handler = StderrHandler(stream)

    class Broken(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            raise RuntimeError(record.args)

    handler.setFormatter(Broken())
    handler.handle(record("m %s", CANARY))
    assert stream.getvalue() == (
        'level=error logger="patrolserver_exporter.ingest" msg="a log line could not be written" error=RuntimeError\n'
    )


def test_a_closed_stream_is_survived() -> None:
    """Logging to a stream that is gone neither raises nor prints."""
    stream = io.StringIO()
    handler = StderrHandler(stream)
    stream.close()
    handler.handle(record("m"))


def test_an_interrupt_is_no_exception_to_log(capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends the program as it always does, and a thread that exits says nothing."""
    stream = io.StringIO()
    setup_logging("info", "logfmt", stream)
    log_uncaught_exceptions()
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    thread = threading.Thread(target=sys.exit)
    thread.start()
    thread.join(10)
    assert stream.getvalue() == ""
    assert "KeyboardInterrupt" in capsys.readouterr().err


def test_a_reader_that_left_is_no_news() -> None:
    """When nobody reads the log any more, nothing is said about it."""

    class Gone(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    stream = Gone()
    StderrHandler(stream).handle(record("m"))
    assert stream.getvalue() == "m\n"


def test_uncaught_exceptions_are_logged() -> None:
    """What nobody caught, in the main thread or another, becomes one redacted line."""
    stream = io.StringIO()
    setup_logging("info", "logfmt", stream, Redactor(CANARY))
    log_uncaught_exceptions()
    try:
        fail(RuntimeError(CANARY))
    except RuntimeError as error:
        sys.excepthook(type(error), error, error.__traceback__)

    thread = threading.Thread(target=fail, args=(LookupError(CANARY),), name="worker")
    thread.start()
    thread.join(10)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].endswith('RuntimeError: ***"')
    assert "thread=worker" in lines[1]
    assert lines[1].endswith('LookupError: ***"')
