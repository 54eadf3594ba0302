# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets are cut out in every spelling."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus, urlencode

import pytest

from ansible_collections.patrolserver.monitoring.plugins.module_utils.redaction import (
    MASK,
    Redactor,
    secrets_of,
    url_secrets,
)

SECRETS = ["plain", "with space", "a/b+c&d=e%f", "ümläut", "%41", "x"]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("spell", [str, quote, quote_plus, lambda s: quote(s, safe=""), lambda s: quote_plus(s).lower()])
def test_no_spelling_is_left(secret, spell):
    """Whatever encoder wrote the secret, it goes."""
    assert Redactor([secret])("<" + spell(secret) + ">") == "<" + MASK + ">"


def test_a_whole_query_is_cut_though_one_secret_is_part_of_the_other():
    """The longer one goes first, so that no rest of it stays."""
    text = Redactor(["abc", "abc/def", None, ""])("?" + urlencode({"key": "abc", "secret": "abc/def"}))
    assert text == "?key={0}&secret={0}".format(MASK)


def test_without_secrets_nothing_is_changed():
    """No pattern, no work."""
    assert Redactor([None, ""])("text") == "text"


def test_the_credentials_in_a_url_count_as_secrets():
    """The password, and both together, as they stand there and as they are meant."""
    assert url_secrets("http://user:pa%20ss@proxy:3128") == ["user:pa%20ss", "user:pa ss", "pa%20ss", "pa ss"]
    assert "user:pass" in url_secrets("http://user:pa\nss@proxy:3128")
    assert "pass" in url_secrets("http://user:pass@[broken")
    assert url_secrets("http://proxy:3128") == url_secrets(None) == []


PARAMS = {
    "token": "canary+tok/en~1\n",
    "username": "us er",
    "password": "canary pass=2%ä\r\n",
    "proxy_url": "http://me:canary%2Fproxy@127.0.0.1:3128",
    "exporter_url": "http://127.0.0.1:1",
}


@pytest.mark.parametrize(
    "leak",
    [
        "Bearer canary+tok/en~1",
        r"b'Bearer canary+tok/en~1\n'",
        "canary%2Btok%2Fen~1",
        "Basic " + base64.b64encode("us er:canary pass=2%ä".encode()).decode(),
        "Basic " + base64.b64encode(b"me:canary/proxy").decode(),
        base64.b64encode(b"canary+tok/en~1").decode(),
        base64.urlsafe_b64encode(b"before canary+tok/en~1 behind").decode(),
        base64.b64encode(b"x: canary+tok/en~1").decode(),
        repr("canary pass=2%ä".encode()),
        json.dumps({"password": "canary pass=2%ä"}),
        "canary+pass%3D2%25%C3%A4",
        "canary%2fproxy",
    ],
)
def test_no_form_of_a_secret_survives(leak):
    """Raw, quoted by Python or JSON, percent-encoded, and in base64 by itself or in a longer text."""
    masked = Redactor(secrets_of(PARAMS))("before {0} behind".format(leak))
    for part in ("canary", "tok/en", "pass=2", "2%"):
        assert part not in masked
    for secret in ("canary+tok/en~1", "us er:canary pass=2%ä", "me:canary/proxy"):
        for offset in range(3):
            inner = base64.b64encode(b"\0" * offset + secret.encode()).decode()[offset + 2 : -6]
            assert inner not in masked
            assert inner.replace("+", "-").replace("/", "_") not in masked


def test_what_is_too_short_to_be_a_secret_masks_nothing_else():
    """Blanks, and the base64 of a few characters, are in every text."""
    assert Redactor(secrets_of({"token": " \n", "password": "ab"}))("yw a whole sentence YWI") == "yw a whole sentence YWI"
