"""The grades D, C and ? are those of docs/patrolserver-api.md."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patrolserver_exporter.simulator.api import form
from patrolserver_exporter.simulator.buckets import found_software, pushed_software
from patrolserver_exporter.simulator.wire import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable

FORM = "application/x-www-form-urlencoded"


def test_a_form_is_read_as_php_reads_it() -> None:
    """Nested names become nested fields, as the SDK posts its buckets."""
    body = b"expire=60&software%5B0%5D%5Bn%5D=php&software%5B0%5D%5Bv%5D=5.2.17&software[1][n]=a%2Bb&tags[]=x&tags[]=y"
    assert form(body, FORM) == {
        "expire": "60",
        "software": {"0": {"n": "php", "v": "5.2.17"}, "1": {"n": "a+b"}},
        "tags": {"0": "x", "1": "y"},
    }


@given(st.dictionaries(st.text("abc", min_size=1), st.text()))
def test_plain_fields_come_through(fields: dict[str, str]) -> None:
    """Whatever was encoded is decoded again, blank values included."""
    assert form(urlencode(fields).encode(), FORM) == fields


@pytest.mark.parametrize("body", [b"[1]", b"{", b"\xff"])
def test_json_that_is_no_object_is_refused(body: bytes) -> None:
    """A client that says JSON has to send an object."""
    with pytest.raises(ApiError) as raised:
        form(body, "application/json; charset=utf-8")
    assert raised.value.status == 400


@given(st.binary(max_size=200), st.sampled_from([FORM, "application/json", ""]))
def test_no_body_breaks_the_reader(body: bytes, content_type: str) -> None:
    """Any bytes are read, or refused as they should be."""
    assert _refusal(lambda: form(body, content_type)) in (None, 400)


def test_the_scanners_list_repeats_what_it_leaves_out() -> None:
    """A field left out is that of the line before; the empty last line is no software (C)."""
    listed = (
        '[{"l":"/","p":"","n":"adduser","v":"3.134"},{"n":"apache2","v":"2.4.62"},'
        '{"l":"/var/www","n":"wordpress","v":"4.9"},{"p":"wordpress","n":"wordpress:akismet"},{}]\n'
    )
    assert [tuple(line[name] for name in "lpnv") for line in pushed_software(listed)] == [
        ("/", "", "adduser", "3.134"),
        ("/", "", "apache2", "2.4.62"),
        ("/var/www", "", "wordpress", "4.9"),
        ("/var/www", "wordpress", "wordpress:akismet", "4.9"),
    ]


def test_the_scanners_apostrophes_are_read() -> None:
    r"""It writes them as ``\'``, which is not JSON."""
    assert [line["n"] for line in pushed_software(r'[{"n":"it\'s","v":"1"},{"n":"a\\\\b\\"}]')] == ["it's", "a\\\\b\\"]


def test_the_sdks_list_repeats_nothing() -> None:
    """Nested fields stand for themselves."""
    nested = {"0": {"n": "acme/shop", "l": "/srv", "v": ""}, "1": {"n": "monolog/monolog", "v": "3.7.0"}}
    assert [line["l"] for line in pushed_software(nested)] == ["/srv", ""]


@pytest.mark.parametrize("odd", ["{", "7", '"a"', "[1]", '["n"]', 7, [None]])
def test_an_unreadable_list_is_refused(odd: object) -> None:
    """It is a client's mistake, and said so."""
    with pytest.raises(ApiError) as raised:
        pushed_software(odd)
    assert raised.value.status == 422


@given(st.text() | st.lists(st.dictionaries(st.sampled_from("nvplx"), st.text())).map(json.dumps))
def test_no_list_breaks_the_reader(listed: str) -> None:
    """Any text is read, or refused as it should be."""
    assert _refusal(lambda: pushed_software(listed)) in (None, 422)


def test_a_plugin_gets_its_canonical_name() -> None:
    """The scanner's ``wordpress:akismet`` is the API's ``wordpress/akismet``."""
    found = found_software({"n": "wordpress:akismet", "v": "5.3.1", "p": "wordpress", "l": "/var/www"})
    assert (found.canonical_name, found.parent, found.location) == ("wordpress/akismet", "wordpress", "/var/www")
    assert (found.supported, found.newest_bugfix_release) == (False, "5.3.5")


def test_software_without_a_version_is_not_detected() -> None:
    """Nobody knows whether it is supported."""
    found = found_software({"n": "php", "v": "", "p": "", "l": ""})
    assert (found.version, found.supported, found.parent, found.location) == (None, None, None, "/")


def _refusal(read: Callable[[], object]) -> int | None:
    try:
        read()
    except ApiError as error:
        return error.status
    return None
