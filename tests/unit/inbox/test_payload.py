from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from patrolserver_exporter.inbox.intake import (
    CHECKUP,
    MAX_IDENTIFIER,
    Payload,
    UnreadableDelivery,
    read_checkup,
    read_payload,
)
from patrolserver_exporter.patrolserver.models import MAX_ID

FIELDS: dict[str, Any] = {
    "webhook_patrolserver": 1,
    "identifier": "webhook.scan_finished",
    "event_id": 12,
    "webhook_id": 3,
}
PAYLOAD = Payload(webhook_id=3, event_id=12, identifier="webhook.scan_finished")
TYPES = [None, "", "application/json", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain", "é;=,"]


def multipart(fields: dict[str, Any], boundary: str = "x-42") -> bytes:
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    return ("".join(parts) + f"--{boundary}--\r\n").encode(errors="replace")


def in_form(fields: dict[str, Any]) -> bytes:
    return urlencode(fields, errors="replace").encode()


def in_json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode()


@pytest.mark.parametrize("content_type", TYPES)
@pytest.mark.parametrize("written", [in_json, in_form, multipart])
def test_a_delivery_is_read_in_each_form_whatever_its_type_claims(written: Any, content_type: str | None) -> None:
    """JSON, form and multipart are distinguished by their bytes."""
    assert read_payload(written(FIELDS), content_type) == PAYLOAD


@pytest.mark.parametrize("written", [in_json, in_form, multipart])
def test_a_mark_of_the_byte_order_is_no_part_of_a_delivery(written: Any) -> None:
    """Some senders put it before their text."""
    assert read_payload(b"\xef\xbb\xbf" + written(FIELDS), None) == PAYLOAD


def test_a_delivery_with_bytes_that_are_no_text_is_read() -> None:
    """They may stand in a field that nobody needs."""
    for body in (
        in_json(FIELDS)[:-1] + b', "note": "\xff"}',
        in_form(FIELDS) + b"&note=\xff",
        multipart(FIELDS | {"note": "N"}),
    ):
        assert read_payload(body.replace(b"N", b"\xff"), None) == PAYLOAD


def test_what_claims_to_be_json_is_told_that_it_is_no_object() -> None:
    """The sender sees which of its forms was looked for."""
    with pytest.raises(UnreadableDelivery, match="The body is not a JSON object"):
        read_payload(b"[1]", "Application/JSON; charset=utf-8")
    with pytest.raises(UnreadableDelivery, match="neither a JSON object nor a form"):
        read_payload(b"[1]", "text/plain")


@pytest.mark.parametrize("flag", [1, True, "1", "true", "yes"])
def test_any_true_form_marks_a_delivery(flag: object) -> None:
    """PHP writes truth in many ways."""
    assert read_payload(in_json(FIELDS | {"webhook_patrolserver": flag}), None) == PAYLOAD


@pytest.mark.parametrize("ids", [("12", "3"), (" 12 ", "3\n"), ("0012", "03"), (12, 3)])
def test_ids_are_numbers_or_digits(ids: tuple[object, object]) -> None:
    """As numbers or as text, with blanks around them."""
    assert read_payload(in_json(FIELDS | dict(zip(("event_id", "webhook_id"), ids, strict=True))), None) == PAYLOAD


@pytest.mark.parametrize("largest", [9_007_199_254_740_991, "9007199254740991", " 9007199254740991\n"])
def test_the_largest_id_is_one(largest: object) -> None:
    """2⁵³−1, in 16 digits, as a number and as text."""
    payload = read_payload(in_json(FIELDS | {"event_id": largest, "webhook_id": largest}), None)
    assert (payload.event_id, payload.webhook_id) == (9_007_199_254_740_991, 9_007_199_254_740_991)


NO_IDS: list[Any] = [
    0,
    -1,
    MAX_ID + 1,
    1.5,
    True,
    None,
    "",
    "0",
    "-1",
    "1e3",
    "٣",
    "1_000",
    "0x10",
    str(MAX_ID + 1),
    [1],
    {},
]


@pytest.mark.parametrize("wrong", [*NO_IDS, "9" * 5000])
@pytest.mark.parametrize("name", ["event_id", "webhook_id"])
def test_what_is_no_id_is_refused_by_the_name_of_its_field(name: str, wrong: object) -> None:
    """From 1 to 2⁵³−1, in ASCII digits; the reason names the field and repeats nothing of the body."""
    with pytest.raises(UnreadableDelivery, match=f"The field {name} is missing or no id"):
        read_payload(in_json(FIELDS | {name: wrong}), None)


@pytest.mark.parametrize("wrong", ["", "a" * (MAX_IDENTIFIER + 1), "a\nb", "\x00", "\u202e", 7, None, ["x"]])
def test_an_identifier_is_short_printable_text(wrong: object) -> None:
    """Unknown ones are fine, but not what could break a log."""
    with pytest.raises(UnreadableDelivery, match="The field identifier"):
        read_payload(in_json(FIELDS | {"identifier": wrong}), None)


def test_an_identifier_has_at_most_128_characters() -> None:
    """One of exactly 128 is read whole, one more is refused."""
    longest = "webhook." + "é" * 120
    assert read_payload(in_json(FIELDS | {"identifier": longest}), None).identifier == longest
    with pytest.raises(UnreadableDelivery, match="at most 128 characters"):
        read_payload(in_json(FIELDS | {"identifier": longest + "x"}), None)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "is empty"),
        (b" \r\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"{", "begins like JSON"),
        (b"[1]", "neither a JSON object nor a form"),
        (b"null", "neither a JSON object nor a form"),
        (b'{"webhook_patrolserver": 0}', "webhook_patrolserver"),
        (b"a=b", "webhook_patrolserver"),
        (b"&".join(b"a=%d" % n for n in range(200)), "more than 100 fields"),
        (b"--", "no boundary"),
        (b"--x\r\ny", "webhook_patrolserver"),
        (b'{"a":' * 3000 + b"1" + b"}" * 3000, "The "),
    ],
)
def test_what_is_no_delivery_is_refused_with_the_reason(body: bytes, reason: str) -> None:
    """The text says what is missing."""
    with pytest.raises(UnreadableDelivery, match=reason):
        read_payload(body, None)


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_VALUES = _SCALARS | st.lists(_SCALARS, max_size=3) | st.dictionaries(st.text(max_size=5), _SCALARS, max_size=3)
_NEARLY = st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, _VALUES)).map(lambda some: FIELDS | some)
_TEXTS = st.dictionaries(st.sampled_from(list(FIELDS)) | st.text(max_size=5), st.text(max_size=20), max_size=6)
_BEGINNINGS = st.sampled_from([b"{", b"--x\r\n", b"a=", b"\xef\xbb\xbf{"])
_BODIES = (
    st.binary(max_size=300)
    | _NEARLY.map(in_json)
    | _TEXTS.map(in_form)
    | _TEXTS.map(multipart)
    | st.tuples(_BEGINNINGS, st.binary(max_size=200)).map(b"".join)
)


@settings(max_examples=3 * settings().max_examples)
@given(body=_BODIES, content_type=st.none() | st.sampled_from(TYPES) | st.text(max_size=30))
@example(body=b"--x\r\nContent-Disposition: form-data; name*=bogus''%FF\r\n\r\n1\r\n--x--", content_type=None)
@example(body=b"--x\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y\r\n\r\n--y--\r\n--x--", content_type=None)
@example(body=b"--x\r\nContent-Transfer-Encoding: base64\r\n\r\n!\r\n--x--", content_type=None)
@example(body=b'{"webhook_patrolserver":1e999}', content_type=None)
@example(body=b'{"webhook_patrolserver":1,"identifier":"\\ud800","event_id":1,"webhook_id":1}', content_type=None)
def test_any_bytes_are_a_delivery_or_a_reason(body: bytes, content_type: str | None) -> None:
    """Nothing else ever comes out: ids in range and printable text, or a short refusal."""
    refusal = "The "
    try:
        payload = read_payload(body, content_type)
    except UnreadableDelivery as error:
        refusal = str(error)
    else:
        assert 0 < payload.webhook_id <= MAX_ID
        assert 0 < payload.event_id <= MAX_ID
        assert payload.identifier.isprintable()
        assert 0 < len(payload.identifier) <= MAX_IDENTIFIER
    assert refusal.startswith("The ")
    assert len(refusal) < 200


def test_a_checkup_is_told_from_a_delivery() -> None:
    """Only a body that is nothing else has a nonce; whatever could be a delivery is one."""
    nonce = "0123456789abcdef" * 2
    assert read_checkup(json.dumps({CHECKUP: nonce}).encode()) == nonce
    for other in ({CHECKUP: nonce, **FIELDS}, {CHECKUP: nonce[1:]}, {CHECKUP: nonce.upper()}, FIELDS, {}):
        assert read_checkup(json.dumps(other).encode()) is None


MULTIPART_PART = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%d\r\n'


@pytest.mark.parametrize(
    "body",
    [
        b'{"webhook_patrolserver":1,"identifier":"x","event_id":14,"event_id":15,"webhook_id":1}',
        b'{"webhook_patrolserver":1,"identifier":"x","event_id" : 14,"webhook_id":1,"event_id":"15", "a":"\xff"}',
        b"webhook_patrolserver=1&identifier=x&event_id=14&event_id=15&webhook_id=1",
        b"".join(
            MULTIPART_PART % field for field in [(b"event_id", 14), (b"webhook_patrolserver", 1), (b"event_id", 15)]
        )
        + b"--b--",
    ],
)
def test_a_delivery_that_names_two_events_is_refused(body: bytes) -> None:
    """One of them would be lost in silence."""
    with pytest.raises(UnreadableDelivery, match="event_id is there twice"):
        read_payload(body, None)


def test_a_field_that_is_there_twice_alike_is_one() -> None:
    """And what is no field of a delivery does not matter."""
    body = b"webhook_patrolserver=1&identifier=x&event_id=14&event_id=14&webhook_id=1&a=1&a=2"
    assert read_payload(body, None).event_id == 14
