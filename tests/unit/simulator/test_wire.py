from __future__ import annotations

import json

import pytest

from patrolserver_exporter.simulator.software import Exploit, Installed, Software
from patrolserver_exporter.simulator.wire import Style, envelope, event_reply, php_json, software_document

AKISMET = Software(
    name="Akismet",
    canonical_name="wordpress/akismet",
    version="5.3.1",
    supported=False,
    newest_bugfix_release="5.3.5",
    parent="wordpress",
    location="/var/www/café",
    exploits=(Exploit(3, "CVE-2099-0003", "Oh", 9.8),),
)


def test_json_is_written_as_php_writes_it() -> None:
    r"""Slashes are escaped, and what is not ASCII is ``\uXXXX``; the scanner relies on it."""
    assert php_json({"a": "/var/www/café", "b": [1, 9.8, True, None]}) == (
        rb'{"a":"\/var\/www\/caf\u00e9","b":[1,9.8,true,null]}'
    )


def test_a_lone_surrogate_gets_through() -> None:
    """Tests want to see what a reader does with it."""
    assert php_json("\ud800") == rb'"\ud800"'


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        (Style.PLAIN, b'{"data":{"id":1,"on":true,"risk":[9.8]}}'),
        (Style.STRINGS, b'{"data":{"id":"1","on":true,"risk":["9.8"]}}'),
        (Style.BARE, b'{"id":1,"on":true,"risk":[9.8]}'),
    ],
)
def test_an_event_is_written_in_each_style(style: Style, expected: bytes) -> None:
    """In the envelope, with numbers as strings, or bare."""
    assert event_reply({"id": 1, "on": True, "risk": [9.8]}, style) == expected


def test_the_bare_style_keeps_the_envelope_of_all_other_replies() -> None:
    """Only events come without it."""
    assert envelope(data=True, style=Style.BARE) == b'{"data":true}'


def test_software_has_the_fields_that_the_clients_read() -> None:
    """With ``exploits`` only where they were asked for."""
    written = software_document(Installed(12, AKISMET), Style.PLAIN, exploits=True)
    assert json.loads(written) == {
        "id": 12,
        "name": "Akismet",
        "canonical_name": "wordpress/akismet",
        "version": "5.3.1",
        "supported": "no",
        "newest_bugfix_release": "5.3.5",
        "parent": "wordpress",
        "location": "/var/www/café",
        "exploits": [
            {
                "id": 3,
                "cve": "CVE-2099-0003",
                "title": "Oh",
                "url": "https://exploits.example.org/CVE-2099-0003",
                "risk": 9.8,
            }
        ],
    }
    assert "exploits" not in json.loads(software_document(Installed(12, AKISMET), Style.PLAIN, exploits=False))


@pytest.mark.parametrize("style", Style)
def test_what_is_not_known_is_never_null_but_the_parent(style: Style) -> None:
    """The scanner prints ``null`` as a version, but finds what has no parent by ``"parent":null``."""
    written = json.loads(software_document(Installed(1, Software(name="a", canonical_name="a")), style, exploits=False))
    assert [name for name, value in written.items() if value is None] == ["parent"]
    assert not written.get("version")
    assert "versions" not in written
    assert "supported" not in written


def test_strings_style_writes_numbers_of_software_as_strings() -> None:
    """Ids and risks too."""
    written = json.loads(software_document(Installed(12, AKISMET), Style.STRINGS, exploits=True))
    assert written["id"] == "12"
    assert written["exploits"][0]["risk"] == "9.8"


def test_odd_fields_are_written_as_they_are() -> None:
    """What a test put there wins over what would be written, and takes nothing else away."""
    odd = Installed(1, Software(name="a", canonical_name="a", version="1"), {"version": 7, "name": "a\nb"})
    written = json.loads(software_document(odd, Style.PLAIN, exploits=False))
    assert (written["id"], written["name"], written["version"], written["location"]) == (1, "a\nb", 7, "/")
