from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.config.schema import Gate
from patrolserver_exporter.web.api.endpoint import decode
from patrolserver_exporter.web.api.gate import read_request
from patrolserver_exporter.web.http.requests import ApiError


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b'{"a":-Infinity}',
        b'"\\ud800"',
        b'"\\u0000"',
        b'"\xff"',
        '"ü"'.encode("utf-16"),
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 5000,
    ],
)
def test_what_is_not_plain_json_is_refused(raw: bytes) -> None:
    """Doubled keys, numbers that are none, odd text and depth bombs are a 400."""
    with pytest.raises(ApiError) as refused:
        decode(raw)
    assert refused.value.status == 400


@given(st.binary(max_size=200))
def test_any_body_is_read_or_refused(raw: bytes) -> None:
    """No body makes anything but a value or a 400."""
    with suppress(ApiError):
        json.dumps(decode(raw), ensure_ascii=False).encode()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["max_total", "max_age", "max_by_severity", "waivers", "baseline", "max_risk", "more"])


@given(st.fixed_dictionaries({"servers": JSON}, optional={"policy": st.dictionaries(NAMES, JSON), "account": JSON}))
def test_any_question_is_read_or_refused(data: object) -> None:
    """A malformed policy is a 400 that says where, and never a verdict."""
    with suppress(ApiError):
        assert read_request(data, Gate()).in_force.policy.max_age >= 0


@pytest.mark.parametrize(
    ("policy", "place"),
    [
        ({"max_totl": 1}, "max_totl"),
        ({"max_total": -1}, "policy.max_total"),
        ({"max_total": True}, "policy.max_total"),
        ({"max_total": "1"}, "policy.max_total"),
        ({"max_risk": 10.5}, "policy.max_risk"),
        ({"max_age": "3600"}, "policy.max_age"),
        ({"max_age": -1}, "policy.max_age"),
        ({"max_age": 1e300}, "policy.max_age"),
        ({"max_by_severity": {"worst": 1}}, "policy.max_by_severity"),
        ({"max_by_severity": None}, "policy.max_by_severity"),
        ({"max_by_kind": {"old": 1}}, "policy.max_by_kind"),
        ({"baseline": "abc"}, "policy.baseline"),
        ({"waivers": [{"server": "*", "software": "*", "until": "2027-02-31", "reason": "x"}]}, "policy.waivers"),
        ({"waivers": [{"server": "*", "software": "*", "until": "2027-02-01"}]}, "reason"),
        ({"waivers": [{"server": "*", "software": "*", "until": "2027-02-01", "reason": " "}]}, "policy.waivers"),
    ],
)
def test_a_wrong_policy_is_refused_by_its_place(policy: object, place: str) -> None:
    """Nothing in a policy is guessed at, because a guess might let a deploy go on."""
    with pytest.raises(ApiError, match=place):
        read_request({"servers": ["web1"], "policy": policy}, Gate())


@pytest.mark.parametrize(
    ("body", "there_are"),
    [
        ({"servers": ["web"], "hgh": 1}, "servers, account, policy, detail"),
        ({"servers": ["web"], "policy": {"max_by_severity": {"hgh": 1}}}, "critical, high, medium, low"),
        ({"servers": ["web"], "policy": {"grace": {"hgh": 1}}}, "critical, high, medium, low"),
    ],
)
def test_an_unknown_member_is_told_with_those_that_there_are(body: object, there_are: str) -> None:
    """At any depth of the body."""
    with pytest.raises(ApiError) as refused:
        read_request(body, Gate())
    assert refused.value.detail.endswith(f"unknown field `hgh`; there are: {there_are}.")


def test_ages_are_seconds_or_durations() -> None:
    """``24h`` is as good as 86400."""
    policy = read_request({"servers": [1], "policy": {"max_age": "1h30m", "max_scan_age": 60}}, Gate()).in_force.policy
    assert (policy.max_age, policy.max_scan_age) == (5400.0, 60.0)


def test_too_many_globs_are_refused() -> None:
    """A hundred globs are enough for anybody, and more would cost seconds."""
    with pytest.raises(ApiError, match="101 globs"):
        read_request({"servers": [f"web{number}*" for number in range(101)]}, Gate())
