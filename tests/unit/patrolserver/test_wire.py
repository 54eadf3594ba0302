from __future__ import annotations

import json
import unicodedata
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.patrolserver.errors import ApiError, PatrolServerError, Unreadable
from patrolserver_exporter.patrolserver.models import MAX_ID, Event, ReportedSoftware, Server
from patrolserver_exporter.patrolserver.wire import (
    pages_of_software,
    parse_event,
    parse_is_scanning,
    parse_server,
    parse_servers,
    parse_software,
    read_installed,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from patrolserver_exporter.patrolserver.models import Software

PARSERS = (parse_servers, parse_server, parse_software, parse_is_scanning, parse_event)


TWICE = [
    b'{"data": [%s], "data": []}',
    b'{"data" : [], "data"\n: [%s]}',
    b'[{"id": 1, "name": "a", "name": "b", "exploits": []}]',
    b'[{"id": 1, "name": "a", "exploits": [{"risk": 9.8, "risk": 1.0}]}]',
    b'[{"id": 1, "name": "a\\u003a\\": ", "exploits": [{"risk": 9.8}], "exploits": []}]',
    b'[{"id": 1, "name": "a\\u003a", "exploits": [{"risk": 9.8}], "exploits": []}]',
    b'\xef\xbb\xbf[{"id": 1, "name": "a", "supported": "no", "supported": "yes", "load": NaN}]',
]
"""A member twice with two values; %s is where an entry may stand."""
TRUE_FORMS: tuple[Any, ...] = ("yes", "YES", " y ", True, 1, "1", 1.0, 2, "true", "on", "1.0")
FALSE_FORMS: tuple[Any, ...] = ("no", False, 0, "0", 0.0, "false", "Off", "n")
UNKNOWN_FORMS: tuple[Any, ...] = ("", " ", None, "perhaps", [], {}, "nan", -1, "-1", "inf", -0.5)


def data(value: Any) -> bytes:
    return json.dumps({"data": value}).encode()


def one_software(**fields: Any) -> Software:
    (software,) = parse_software(data([{"name": "PHP", "canonical_name": "php", **fields}])).value
    return software


DOCUMENTED_EVENT = rb"""
{"server_id": 1, "new_issues": [{"title": "Upgrade your PHP to a supported version.",
 "description": "Your current PHP version (5.2.27) is no longer supported\/it is advised to upgrade.",
 "software": {"version": "5.2.17", "software": {"name": "PHP", "canonical_name": "php"}}}]}
"""


def test_the_documented_event_is_read() -> None:
    """The event of the vendor's page, bare and with escaped slashes, gives its issue with the nested product."""
    parsed = parse_event(DOCUMENTED_EVENT)
    assert (parsed.oddities, parsed.complete, parsed.value.server_id) == ((), True, 1)
    (issue,) = parsed.value.new_issues
    assert issue.software == ReportedSoftware(name="PHP", canonical_name="php", version="5.2.17")
    assert issue.title == "Upgrade your PHP to a supported version."
    assert issue.description is not None
    assert "supported/it" in issue.description


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": [{"id": 12, "name": "a.example", "verified": true}]}',
        b'[{"id": 12, "name": "a.example", "verified": 1}]',
        b'\xef\xbb\xbf{"data": [{"id": "12", "name": "a.example", "verified": "yes"}]}',
        b'{"data": {"12": {"id": 12.0, "name": " a.example\\n", "verified": "1"}}}',
        b'{"data": {"data": [{"id": 12, "name": "a.example", "verified": "on"}]}}',
        b'{"data": {"servers": [{"id": 12, "domain": "a.example", "verified": "true"}]}}',
        b'{"error": null, "data": [{"id": 12, "name": "a.example", "verified": "TRUE"}]}',
        b'{"data": [{"id": 12, "id": 12, "name": "a.example", "verified": 1.0}]}',
        b'{"data": [{"id": 12, "name": "a.example", "verified": true, "load": NaN}]}',
    ],
)
def test_every_form_of_a_list_of_servers(body: bytes) -> None:
    """With the envelope or bare, PHP's lists as objects, numbers as text, booleans in any form: one and the same."""
    parsed = parse_servers(body)
    assert parsed.value == (Server(id=12, name="a.example", verified=True),)
    assert (parsed.oddities, parsed.complete) == ((), True)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"null",
        b'{"data": null}',
        b'{"data": ""}',
        b'{"data": {}}',
        b"{}",
        b'{"data": "none"}',
        b'{"data": {"id": 1, "name": "a"}}',
        b'{"message": "Server Error"}',
        b"<!DOCTYPE html><html></html>",
        b'{"data": [{"id": 1',
        b"[" * 100_000,
        b'{"data": ' + b'{"a":' * 50_000,
        b"\xff\xfe\x00",
    ],
)
def test_what_is_no_list_is_never_an_empty_fleet(body: bytes) -> None:
    """Without a list the reply is unreadable: an empty fleet by accident would end all series."""
    with pytest.raises(Unreadable):
        parse_servers(body)
    with pytest.raises(Unreadable):
        parse_software(body)


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b'{"error": {"code": 83, "message": "host does not resolve"}}', "83", "host does not resolve"),
        (b'{"error": {"code": "15"}}', "15", ""),
        (b'{"error": "Bucket does not exist"}', None, "Bucket does not exist"),
        (b'{"error": "too_many_failed_attempts"}', "too_many_failed_attempts", ""),
        (b'{"error": 82, "message": "e-mail taken"}', "82", "e-mail taken"),
        (b'{"error": ["Bucket does not exist"]}', None, "Bucket does not exist"),
        (b'{"error": true, "message": "no"}', None, "no"),
        (b'{"error": null}', None, ""),
        (b'{"error": false, "success": false}', None, ""),
        (b'{"errors": {"message": "no"}}', None, "no"),
        (b'{"error": "Bucket does not exist", "data": []}', None, "Bucket does not exist"),
        (b'{"data": {"error": {"code": 15, "message": "no"}}}', "15", "no"),
    ],
)
def test_an_error_in_any_form_is_a_failure(
    parse: Callable[[bytes], object], body: bytes, code: str | None, message: str
) -> None:
    """A reply with ``error`` fails for every call, and says what the API said."""
    with pytest.raises(ApiError) as raised:
        parse(body)
    assert (raised.value.code, raised.value.message) == (code, message)


@pytest.mark.parametrize("body", TWICE)
@pytest.mark.parametrize("parse", PARSERS[:1] + PARSERS[2:3])
def test_a_member_that_comes_twice_is_never_just_the_last(parse: Callable[[bytes], object], body: bytes) -> None:
    """Which of the two is true, nobody knows: the reply cannot be read."""
    with pytest.raises(Unreadable, match="twice"):
        parse(body.replace(b"%s", b'{"id": 1, "name": "a"}'))


def test_one_odd_server_does_not_lose_the_others() -> None:
    """What cannot be a server is left out and noted, and the list says that it is not complete."""
    entries = [{"id": 1, "name": "a"}, None, "x", {"name": "b"}, {"id": 0}, {"id": MAX_ID + 1}, {"id": True}, {"id": 2}]
    parsed = parse_servers(data(entries))
    assert [(server.id, server.name) for server in parsed.value] == [(1, "a"), (2, "2")]
    assert not parsed.complete
    assert len(parsed.oddities) == 7
    assert parsed.oddities[0] == "servers [1]: is not an object"


@pytest.mark.parametrize("largest", [9_007_199_254_740_991, "9007199254740991", 9_007_199_254_740_991.0])
def test_the_largest_id_is_one(largest: object) -> None:
    """2⁵³−1 is a server's id, as a number and as text; the next one is none."""
    assert [server.id for server in parse_servers(data([{"id": largest}])).value] == [9_007_199_254_740_991]
    assert not parse_servers(data([{"id": "9007199254740992"}])).value


@pytest.mark.parametrize(("name", "complete"), [("a", True), ("b", False)])
def test_the_first_of_two_servers_with_one_id_counts(name: str, complete: bool) -> None:  # noqa: FBT001  # a case
    """A duplicate is odd; with another name it may be one that a glob means, so the list is not whole."""
    parsed = parse_servers(data([{"id": 1, "name": "a"}, {"id": "1", "name": name}]))
    assert parsed.value == (Server(id=1, name="a", has_other_name=not complete),)
    assert parsed.complete is complete
    assert parsed.oddities == ("servers [1]: id 1 came before; the first one counts",)


@pytest.mark.parametrize("name", [{}, {"name": None}, {"name": " "}, {"name": ["web-1"]}])
def test_a_list_with_a_server_without_a_name_is_not_whole(name: dict[str, object]) -> None:
    """Nobody knows which globs mean it."""
    parsed = parse_servers(data([{"id": 7, **name}]))
    assert parsed.value == (Server(id=7, name="7"),)
    assert parsed.partial_because == ("servers [0]: name is missing; the id stands for it",)


@pytest.mark.parametrize(
    ("fields", "version", "candidates"),
    [
        ({"version": "5.2.17"}, "5.2.17", ()),
        ({"version": "5.2.17", "versions": ["5.3"]}, "5.2.17", ()),
        ({"version": 7}, "7", ()),
        ({"version": 5.6}, "5.6", ()),
        ({"versions": ["5.2", "5.3"]}, None, ("5.2", "5.3")),
        ({"version": "", "versions": "5.2"}, None, ("5.2",)),
        ({"version": None, "versions": {"a": "5.2", "b": ""}}, None, ("5.2",)),
        ({"version": ["5.2", None]}, None, ("5.2",)),
        ({"version": False}, None, ()),
        ({"version": 10**500}, None, ()),
        ({"version": "unknown"}, None, ()),
        ({"version": "Not detected."}, None, ()),
        *[({"version": word}, None, ()) for word in ("error", "Timed out", "access denied", "NaN", "(hidden)")],
        ({"version": "???"}, None, ()),
        ({"version": "\u200b"}, None, ()),
        ({"version": "*", "versions": ["x.x", "7.x"]}, None, ("7.x",)),
        ({"version": "dev-master"}, "dev-master", ()),
        ({"version": " N/A ", "versions": ["-", "5.2"]}, None, ("5.2",)),
        ({"versions": [str(n) for n in range(100)]}, None, tuple(str(n) for n in range(32))),
        ({}, None, ()),
    ],
)
def test_every_form_of_a_version(fields: dict[str, Any], version: str | None, candidates: tuple[str, ...]) -> None:
    """The exact version, or the candidates that came in its place, or neither."""
    software = one_software(**fields)
    assert (software.version, software.candidates) == (version, candidates)


@pytest.mark.parametrize(
    ("supported", "read"),
    [
        *((value, True) for value in TRUE_FORMS if value != 2),
        *((value, False) for value in FALSE_FORMS),
        *((value, None) for value in UNKNOWN_FORMS),
    ],
)
def test_every_form_of_supported(supported: Any, read: bool | None) -> None:  # noqa: FBT001 - the value under test
    """True and false in all their forms; what means nothing is unknown, never unsupported."""
    assert one_software(supported=supported).supported is read


@pytest.mark.parametrize(
    "beside",
    [
        {"eol": True},
        {"end_of_life": "yes"},
        {"isSupported": False},
        {"security_support": "ended", "maintained": "no"},
        {"status": "Unsupported"},
        {"support_status": "end of life"},
        {"health": "vulnerable"},
        {"support": "ended"},
        {"support": "none"},
        {"support_status": "expired"},
        {"support_ended": True},
        {"supported_version": False},
        {"is_deprecated": 1},
    ],
    ids=str,
)
def test_a_software_that_contradicts_that_it_is_supported_is_unknown(beside: dict[str, Any]) -> None:
    """It is told; that it is not supported stays as it is."""
    parsed = parse_software(data([{"name": "PHP", "supported": "yes", **beside}]))
    assert parsed.value[0].supported is None
    assert any("supported says yes, and" in oddity for oddity in parsed.oddities)
    assert one_software(supported="no", **beside).supported is False


@pytest.mark.parametrize(
    "beside",
    [
        {"eol": False},
        {"eol": "2031-04-30"},
        {"end_of_life": None},
        {"status": "active"},
        {"status": "outdated"},
        {"supported_until": "2031-04-30"},
        {"is_supported": "yes"},
        {"support": "https://example.org"},
        {"support": "community"},
        {"support_ended": False},
        {"supported_version": "8.1"},
        {"state": "none"},
    ],
    ids=str,
)
def test_what_else_is_said_of_support_changes_nothing(beside: dict[str, Any]) -> None:
    """The day of its end, or the same in other words."""
    assert one_software(supported="yes", **beside).supported is True


def test_names_stand_in_for_each_other() -> None:
    """A missing machine name is made from the name and the other way round; without either the entry is left out."""
    entries = [{"name": " My  Plug "}, {"canonical_name": "php"}, {"name": "", "canonical_name": None}]
    parsed = parse_software(data(entries))
    assert [(one.name, one.canonical_name) for one in parsed.value] == [("My  Plug", "my-plug"), ("php", "php")]
    assert (parsed.complete, parsed.oddities) == (False, ("software [2]: has no name",))


def test_optional_fields_are_absent_in_every_form() -> None:
    """Missing, null, empty, PHP's false and words for none all mean that there is none; an object's name is taken."""
    for absent in (
        {},
        {"parent": None, "newest_bugfix_release": ""},
        {"parent": False, "newest_bugfix_release": []},
        {"newest_bugfix_release": "none"},
        {"newest_bugfix_release": "N/A"},
        {"newest_bugfix_release": {"version": "-"}},
    ):
        software = one_software(**absent)
        assert (software.parent, software.newest_bugfix_release) == (None, None)
    nested = one_software(parent={"canonical_name": "wordpress"}, newest_bugfix_release={"version": "6.1"})
    assert (nested.parent, nested.newest_bugfix_release) == ("wordpress", "6.1")


@pytest.mark.parametrize("value", [True, 1, "1", "yes", {"isScanning": True}, {"is_scanning": "true"}])
def test_every_form_of_scanning(value: Any) -> None:
    """``isScanning`` as plain data or in an object."""
    assert parse_is_scanning(data(value)) is True
    assert parse_is_scanning(json.dumps(value).encode()) is True


def test_not_scanning_is_said_and_not_guessed() -> None:
    """False is false; nothing readable is a failure and not false."""
    assert parse_is_scanning(b'{"data": false}') is False
    for body in (b'{"data": null}', b'{"data": "perhaps"}', b'{"data": []}', b"{}", b"[]"):
        with pytest.raises(Unreadable):
            parse_is_scanning(body)


@pytest.mark.parametrize("body", [b'{"data": null}', b'{"data": []}', b'{"data": {}}', b'{"data": ""}', b"[]", b"{}"])
def test_a_test_event_may_be_empty(body: bytes) -> None:
    """An empty event is an event."""
    assert parse_event(body).value == Event()


@pytest.mark.parametrize("body", [b"null", b"true", b'"x"', b'{"message": "Unauthenticated."}', b'{"data": 7}', b"[1]"])
def test_what_is_no_event_is_unreadable(body: bytes) -> None:
    """A complaint or a stray value is not taken for a test event."""
    with pytest.raises(Unreadable):
        parse_event(body)


@pytest.mark.parametrize(
    "form",
    [
        {"server_id": "7"},
        {"server": {"id": 7}},
        {"server": 7},
        {"data": {"server_id": 7}},
        {"server_id": 7, "server": "web-7"},
        {"server_id": 7, "server": {"id": "web-7", "name": "web-7"}},
        {"server_id": 7, "server": "7"},
    ],
)
def test_every_form_of_an_events_server(form: dict[str, Any]) -> None:
    """As a number, as text, nested."""
    assert parse_event(data(form)).value.server_id == 7


@pytest.mark.parametrize(
    "data",
    [
        {"server_id": 2, "server": {"id": 1}, "new_issues": []},
        {"event": {"server_id": 1, "new_issues": [{"title": "t"}]}},
        {"payload": {"events": [{"server": {"id": 1}}]}},
        {"serverId": 1, "newIssues": [{"title": "t"}]},
        {"servers": [{"id": 1}]},
    ],
)
def test_an_event_in_a_form_that_is_not_known_is_not_whole(data: dict[str, Any]) -> None:
    """It is about some server, and nobody knows which."""
    parsed = parse_event(json.dumps({"data": data}).encode())
    assert (parsed.value.server_id, parsed.complete) == (None, False)


@pytest.mark.parametrize(
    "data", [{"tested_at": "2026-11-26"}, {"event": {"id": 7, "new_issues": []}}, {"user": {"id": 1}}]
)
def test_an_event_that_is_about_no_server_is_whole(data: dict[str, Any]) -> None:
    """A test may say anything else."""
    assert parse_event(json.dumps({"data": data}).encode()).complete


def test_odd_issues_are_counted() -> None:
    """What is no issue is counted, and the readable ones are kept, flat or nested, also one that names no software."""
    issues = {
        "0": {"software": {"name": "PHP", "canonical_name": "php", "versions": ["5.2", "5.3"]}},
        "2": {"software": {"software": {"name": "nginx"}, "location": "/"}},
        "3": {"software": "exim"},
        "4": {"title": "no software"},
        "7": "only a title",
        "8": {"software": {"version": "1"}},
        "5": 7,
        "9": {},
        "6": {"software": {"software": "bind", "version": 9}},
    }
    parsed = parse_event(data({"server_id": 1, "new_issues": issues}))
    assert [issue.software for issue in parsed.value.new_issues] == [
        ReportedSoftware(name="PHP", canonical_name="php", candidates=("5.2", "5.3")),
        ReportedSoftware(name="nginx", canonical_name="nginx", location="/"),
        ReportedSoftware(name="exim", canonical_name="exim"),
        None,
        None,
        None,
        ReportedSoftware(name="bind", canonical_name="bind", version="9"),
    ]
    assert [issue.title for issue in parsed.value.new_issues[3:6]] == ["no software", "only a title", None]
    assert parsed.value.odd_issues == 2
    assert not parsed.complete


def test_odd_fields_are_noted_and_left_out() -> None:
    """An entry with odd fields is kept without them, and the notes name entry and field, never the value."""
    parsed = parse_software(data([{"name": "PHP", "id": "x", "location": [], "supported": "perhaps"}]))
    assert parsed.value[0].id is None
    assert parsed.complete
    assert set(parsed.oddities) == {
        "software [0]: id is not an id",
        "software [0]: location is not text",
        "software [0]: supported is neither true nor false",
    }
    assert parse_servers(data([{"id": 1, "name": "a", "verified": []}])).oddities == (
        "servers [0]: verified is neither true nor false",
    )


def test_no_new_issues_in_every_form() -> None:
    """Missing, null and PHP's empty objects are none, and nothing is odd."""
    forms: tuple[dict[str, Any], ...] = ({}, {"new_issues": None}, {"new_issues": []}, {"new_issues": {}})
    for form in forms:
        parsed = parse_event(data({"server_id": 1, **form}))
        assert (parsed.value, parsed.complete) == (Event(server_id=1), True)


def test_the_shown_version_is_exact_or_the_first_candidate() -> None:
    """As the vendor's scanner words it."""
    assert one_software(version="5.2").shown_version == "5.2"
    assert one_software(versions=["5.2", "5.3"]).shown_version == "<=5.2"
    assert one_software().shown_version is None
    reported = parse_event(DOCUMENTED_EVENT).value.new_issues[0].about
    assert reported.shown_version == "5.2.17"


def test_issues_of_no_server_are_not_complete() -> None:
    """An event with issues but without a readable server says so."""
    parsed = parse_event(data({"server_id": "x", "new_issues": [{"software": "php"}]}))
    assert (parsed.value.server_id, parsed.complete) == (None, False)


def test_odd_text_is_cleaned() -> None:
    """Lone surrogates, control characters, line breaks and invalid UTF-8 do not get through."""
    body = b'{"data": [{"id": 1, "name": "\\ud800a\\u0000\\u202eb\\r\\n\xffc"}, {"id": 2, "name": "a\tb"}]}'
    assert [server.name for server in parse_servers(body).value] == ["�a��b �c", "a b"]


def test_long_texts_with_one_beginning_stay_two() -> None:
    """What is cut ends in an ellipsis and a hash of the whole."""
    first, second = parse_servers(data([{"id": 1, "name": "a" * 10_000}, {"id": 2, "name": "a" * 10_001}])).value
    assert len(first.name) == len(second.name) == 512
    assert first.name != second.name
    assert "…" in first.name


def test_there_is_an_end_to_oddities() -> None:
    """A reply of nothing but oddities is summed up."""
    parsed = parse_software(data([None] * 1_000))
    assert len(parsed.oddities) == 21
    assert parsed.oddities[-1] == "and 980 more"


FIELDS = st.sampled_from(
    [
        "id",
        "name",
        "canonical_name",
        "version",
        "versions",
        "supported",
        "newest_bugfix_release",
        "parent",
        "location",
        "exploits",
        "risk",
        "cve",
        "1",
        "title",
        "description",
        "software",
        "server_id",
        "server",
        "new_issues",
        "data",
        "error",
        "isScanning",
        "verified",
        "meta",
        "links",
        "next",
        "current_page",
        "last_page",
    ]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=40),
    st.sampled_from(["yes", "no", "1", "7,5", "PHP", "x" * 20_000, "\ud800", "a\nb", 10**500, -1]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(FIELDS, inner, max_size=6)),
    max_leaves=25,
)


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts(inner)


def assert_strict(parsed: Any) -> None:
    for text in texts([msgspec.to_builtins(getattr(parsed, "value", parsed)), *getattr(parsed, "oddities", ())]):
        assert len(text) <= 8_192
        assert not {"Cc", "Cs", "Zl", "Zp"} & set(map(unicodedata.category, text))
        assert text == text.strip()


@pytest.mark.parametrize("parse", PARSERS)
@given(value=VALUES, prefix=st.sampled_from(["", '{"data": ', '{"data": [{"id": 1, "name": "a", "exploits": [']))
def test_any_json_is_read_or_refused(parse: Callable[[bytes], object], value: Any, prefix: str) -> None:
    """Whatever the API sends, the result is strict or the failure is one of this package's."""
    suffix = {"": "", '{"data": ': "}"}.get(prefix, "]}]}")
    try:
        parsed = parse(f"{prefix}{json.dumps(value)}{suffix}".encode())
    except PatrolServerError as error:
        assert isinstance(error, ApiError | Unreadable)  # noqa: PT017 - either outcome is fine
        return
    assert_strict(parsed)


@pytest.mark.parametrize("parse", PARSERS)
@given(body=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(parse: Callable[[bytes], object], body: bytes) -> None:
    """Bytes that are nothing at all do no harm either."""
    try:
        assert_strict(parse(body))
    except PatrolServerError as error:
        assert isinstance(error, ApiError | Unreadable)  # noqa: PT017 - either outcome is fine


@pytest.mark.parametrize(
    ("member", "whole"),
    [
        ('"scan_status":"failed"', False),
        ('"scanStatus":"error"', False),
        ('"last_scan":"failed"', False),
        ('"scan_status":"finished"', True),
        ('"last_scan":"2026-11-26 03:00:00"', True),
    ],
)
def test_a_scan_that_failed_leaves_what_was_known_before_it(member: str, whole: bool) -> None:  # noqa: FBT001
    """The list is from an earlier one, so it does not tell what is there now."""
    pages = pages_of_software("http://api.example.org", "servers/1/software", "scope=exploits")
    entry = '{"id":1,"name":"PHP","canonical_name":"php","exploits":[]}'
    pages.add(f'{{"data":[{entry}],{member}}}'.encode())
    assert read_installed(pages).complete is whole


@pytest.mark.parametrize(
    ("member", "whole"),
    [
        ({"quota_exceeded": True}, False),
        ({"plan": {"name": "free", "limit": {"reached": 1}}}, False),
        ({"subscription": "expired"}, False),
        ({"license": {"status": "Suspended"}}, False),
        ({"quota_exceeded": False, "rate_limit": {"limit": 60, "remaining": 0, "exceeded": "no"}}, True),
        ({"user": {"name": "expired"}, "plan": "free", "license": {"expired_at": None}}, True),
        ({"user": {"password_expired": True}, "plan": {"trial_expired": True, "trial": {"expired": True}}}, True),
    ],
)
def test_an_account_over_its_limit_may_be_shown_less(member: dict[str, Any], whole: bool) -> None:  # noqa: FBT001
    """What the envelope says of the account counts only where it says that it gets less, or nothing new."""
    assert parse_servers(json.dumps({"data": [{"id": 1, "name": "a"}], **member}).encode()).complete is whole


OTHER = {"id": 5, "name": "b"}


@pytest.mark.parametrize(
    ("beside", "whole"),
    [
        ({"servers": {"5": OTHER}}, False),
        ({"shared_servers": [OTHER]}, False),
        ({"0": OTHER}, False),
        ({"unverified": [OTHER | {"verified": False}]}, False),
        ({"deletedServers": [OTHER]}, True),
        ({"users": [OTHER], "server": {"id": 1, "links": {"a": 1}}, "servers": 1, "result": {"a": {"b": 1}}}, True),
    ],
)
def test_servers_beside_the_list_make_it_a_part(beside: dict[str, Any], whole: bool) -> None:  # noqa: FBT001
    """By another name and in another form they are servers all the same, unless they are said to be gone."""
    assert parse_servers(json.dumps({"data": [{"id": 1, "name": "a"}], **beside}).encode()).complete is whole


NO_FIX: list[Any] = [None, "", False, 0, [], {}, "n/a", {"version": None}, {"version": ""}]
ODD_FIXES: list[Any] = [True, ["8.1.29", "8.2"], {"number": "8.1.29"}, {"name": "8.1.29"}, [[]]]


@pytest.mark.parametrize(
    ("told", "read", "whole"),
    [
        *[("8.1.29", "8.1.29", True), (["8.1.29"], "8.1.29", True), ({"version": "8.1.29"}, "8.1.29", True)],
        *[(told, None, True) for told in NO_FIX],
        *[(told, None, False) for told in ODD_FIXES],
    ],
)
def test_a_fix_that_cannot_be_read_is_no_sign_that_there_is_none(told: Any, read: str | None, whole: bool) -> None:  # noqa: FBT001
    """A gate for what can be fixed would leave the issue out."""
    entry = {"name": "PHP", "version": "7.4", "supported": "no", "newest_bugfix_release": told, "exploits": []}
    parsed = parse_software(json.dumps({"data": [entry]}).encode())
    assert (parsed.value[0].newest_bugfix_release, not parsed.partial_because) == (read, whole)


@pytest.mark.parametrize(
    ("told", "read"),
    [
        *[(yes, True) for yes in ("yes", True, 1, "1", 1.0, "1.0", "true")],
        *[(no, False) for no in ("no", False, 0, "0", 0.0)],
        *[(odd, None) for odd in (2, 1546300800, "20190101", "1546300800", 2019.5, 1e9, "1e9", -1)],
    ],
)
def test_a_number_that_is_neither_0_nor_1_does_not_tell_of_support(told: Any, read: bool | None) -> None:  # noqa: FBT001
    """It may be the day on which support ends, or ended."""
    parsed = parse_software(json.dumps({"data": [{"name": "PHP", "supported": told, "exploits": []}]}).encode())
    assert parsed.value[0].supported is read


def test_a_server_that_comes_twice_takes_no_others_place_in_the_total() -> None:
    """Three are told, two came: the third may have anything."""
    servers = [{"id": 1, "name": "web1"}, {"id": 2, "name": "web2"}, {"id": "2", "name": "web2"}]
    assert parse_servers(json.dumps({"total": 3, "data": servers}).encode()).partial_because
    assert not parse_servers(json.dumps({"total": 2, "data": servers[:2]}).encode()).partial_because
    assert not parse_servers(json.dumps({"data": servers}).encode()).partial_because


@pytest.mark.parametrize(
    ("said", "trouble", "claim"),
    [
        ({"stale": True}, "stale says yes", None),
        ({"is_truncated": "yes"}, "is_truncated says yes", None),
        ({"status": "Suspended"}, "status says suspended", None),
        ({"online": False, "enabled": True}, "online says no", None),
        ({"monitored": "no"}, "monitored says no", None),
        ({"stale": False, "online": True, "enabled": 1, "status": "active", "paused": None}, None, None),
        *[({"error": "host unreachable"}, "error is set", None), ({"errors": ["dns"]}, "errors is set", None)],
        ({"scan_status": "failed"}, "scan_status tells of a failure", None),
        ({"scan_status": "unreachable"}, "scan_status tells of a failure", None),
        ({"last_scan": {"status": "timed_out"}}, "last_scan tells of a failure", None),
        ({"status": "error"}, "status tells of a failure", None),
        ({"reachable": False}, "reachable says no", None),
        ({"exploitable": True}, None, "exploitable"),
        ({"exploitable": 3}, None, "exploitable"),
        ({"exploitable": "yes"}, None, "exploitable"),
        ({"exploitable": ["CVE-2026-0001"]}, None, "exploitable"),
        *[({name: 2}, None, name) for name in ("critical", "vulnerabilities", "exploits_count", "critical_issues")],
        *[({"status": word}, None, "status") for word in ("vulnerable", "exploitable", "Critical")],
        ({"summary": {"exploits": 3}}, None, "summary.exploits"),
        ({"risk": 9.8}, None, "risk"),
        ({"severity": "critical"}, None, "severity"),
        ({"software": [{"name": "PHP", "exploits": [{"risk": 9.8}]}]}, None, "software"),
        ({"exploitable": False}, None, None),
        ({"exploitable": 0}, None, None),
        ({"exploitable": "no"}, None, None),
        ({"exploitable": None}, None, None),
        ({"exploitable": []}, None, None),
        *[({"status": word}, None, None) for word in ("ok", "outdated", "unsupported", "scanning", "idle", "active")],
        ({"error": None, "errors": [], "critical": 0, "summary": {"exploits": 0}, "risk": 1.2}, None, None),
        ({"name": "critical.error.example", "tags": ["vulnerable"], "os": {"name": "Debian"}}, None, None),
        ({"scan_status": "running", "last_scan": {"status": "finished", "at": 1}, "scanned": True}, None, None),
    ],
)
def test_what_a_list_says_of_a_server_itself_is_heard(
    said: dict[str, Any], trouble: str | None, claim: str | None
) -> None:
    """That it could not be looked at, and that it has exploits (C: ``exploitable`` and ``status`` are scopes)."""
    (server,) = parse_servers(data([{"id": 1, "name": "a", **said}])).value
    assert (server.trouble, server.claim) == (trouble, claim)


@pytest.mark.parametrize(
    ("event", "whole"),
    [
        *[
            ({"server_id": 1, name: [{"risk": 9.8}]}, False)
            for name in ("issues", "vulnerabilities", "new_exploits", "x")
        ],
        ({"server_id": 1, "issues_count": 2}, False),
        ({"server_id": 1, "software": {"name": "PHP"}}, False),
        ({"server_id": 1, "affected_servers": [1, 2], "new_issues": []}, False),
        *[({name: "web1"}, False) for name in ("server_name", "host", "domain")],
        ({"vulnerable_servers": [1]}, False),
        ({"server_ids": [1]}, False),
        ({"server_id": 1, "server_name": "web1", "domain": "a", "server": {"id": 1, "name": "web1"}}, True),
        ({"server_id": 1, "new_issues": [{"title": "a"}], "issues_count": 1}, True),
        ({"server_id": 1, "issues": [], "exploits": 0, "affected_servers": None}, True),
        ({"server_id": 1, "at": 1, "user": {"name": "x"}, "text": "vulnerable"}, True),
        ({"message": "a test", "at": 1}, True),
    ],
)
def test_an_event_that_tells_more_than_is_read_is_not_whole(event: dict[str, Any], whole: bool) -> None:  # noqa: FBT001
    """Servers, software and issues by other names may be what it is about."""
    assert parse_event(data(event)).complete is whole
