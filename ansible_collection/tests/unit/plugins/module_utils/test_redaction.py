# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets are cut out in every spelling."""

from __future__ import annotations

from urllib.parse import quote, quote_plus, urlencode

import pytest

from ansible_collections.patrolserver.monitoring.plugins.module_utils.redaction import MASK, Redactor, url_secrets

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
    """The password, and both together as they stand there."""
    assert url_secrets("http://user:pa%20ss@proxy:3128") == ["pa%20ss", "user:pa%20ss"]
    assert url_secrets("http://proxy:3128") == []
    assert url_secrets("http://[broken") == ["http://[broken"]
