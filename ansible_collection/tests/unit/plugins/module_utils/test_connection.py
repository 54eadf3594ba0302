# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of a connection: what cannot be meant is refused by its name, before anything is sent, and without its value."""

from __future__ import annotations

import pytest

from ansible_collections.patrolserver.monitoring.plugins.module_utils.connection import checked, endpoint
from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import InvalidInput
from ansible_collections.patrolserver.monitoring.plugins.module_utils.exporter import Exporter

EXPORTER = {"exporter_url": "http://127.0.0.1:1", "timeout": 5, "retries": 2}
API = {"api_url": "http://127.0.0.1:1", "api_key": "k", "api_secret": "s", "timeout": 5, "retries": 2}


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_a_line_break_at_the_end_is_none_of_it(end):
    """Vaults and files end so. A blank at the end of a password is part of it."""
    given = {"token": "tok" + end, "username": "u" + end, "password": "p " + end, "proxy_url": "http://p:1" + end}
    used = checked({**EXPORTER, **given, "exporter_url": "http://127.0.0.1:1/" + end}, "exporter_url")
    assert (used["token"], used["username"], used["password"], used["proxy_url"]) == ("tok", "u", "p ", "http://p:1")
    assert used["exporter_url"] == "http://127.0.0.1:1"
    assert checked({**API, "api_key": "k" + end, "api_secret": "s " + end}, "api_url")["api_secret"] == "s "


@pytest.mark.parametrize("option", ["token", "username", "password", "proxy_url", "exporter_url", "ca_file"])
@pytest.mark.parametrize("inside", ["\n", "\r", "\0", "\t", "\x1b", "\x7f", "\x85", "\u2028"])
def test_another_control_character_is_refused_by_the_name_of_its_option(option, inside):
    """And nothing of the value is told."""
    with pytest.raises(InvalidInput, match="^{0}: it holds a control character, U".format(option)) as caught:
        checked({**EXPORTER, option: "http://can" + inside + "ary"}, "exporter_url")
    assert "ary" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"retries": -1}, "retries: it has to be 0 or more, not -1"),
        ({"timeout": 0}, "timeout: it has to be more than 0 seconds"),
        ({"timeout": -5}, "timeout: it has to be more than 0 seconds"),
        ({"timeout": float("nan")}, "timeout: it has to be more than 0 seconds"),
        ({"timeout": float("inf")}, "timeout: it has to be more than 0 seconds"),
        ({"token": " \n"}, "token: there is nothing but blanks"),
        ({"token": "t\u20ac"}, "token: it holds a character that no HTTP header can carry"),
        ({"username": "a:b"}, "username: it holds a colon"),
        ({"proxy_url": "socks5://x"}, "proxy_url: it has to start with http"),
        ({"proxy_url": "http://"}, "proxy_url: it has to start with http"),
        ({"proxy_url": "https://u:canary@proxy:3128"}, "proxy_url: it starts with https://, and a proxy is not spoken to in TLS"),
        ({"proxy_url": "HTTPS://proxy"}, "proxy_url: it starts with https://, and a proxy is not spoken to in TLS"),
        ({"ca_file": "/no/such/ca.pem"}, "ca_file: /no/such/ca.pem cannot be read: No such file"),
        ({"ca_file": "/"}, "ca_file: / is a folder"),
        ({"ca_file": __file__, "exporter_url": "https://x"}, "ca_file: {0} holds no certificate".format(__file__)),
        ({"client_cert": "/no/such.pem", "client_key": "/x"}, "client_cert: /no/such.pem cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, sentence):
    """With a sentence that names the option."""
    with pytest.raises(InvalidInput) as caught:
        checked({**EXPORTER, **options}, "exporter_url")
    assert str(caught.value).startswith(sentence)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY"])
def test_a_proxy_of_the_environment_that_wants_tls_is_refused(name, monkeypatch):
    """Where it holds; it would be sent in plain what was meant to be secret."""
    monkeypatch.setenv(name, "https://u:canary@proxy:3128")
    given = {**EXPORTER, "exporter_url": "https://exporter.example.org"}
    with pytest.raises(InvalidInput, match="^https_proxy of the environment: it starts with https://.*use_proxy: false") as caught:
        checked(given, "exporter_url")
    assert "canary" not in str(caught.value)
    for other in ({"use_proxy": False}, {"proxy_url": "http://proxy"}, {"exporter_url": "http://exporter.example.org"}):
        assert checked({**given, **other}, "exporter_url")
    monkeypatch.setenv("no_proxy", "example.org")
    assert checked(given, "exporter_url")


def test_a_proxy_may_be_named_without_http():
    """Host and port mean that."""
    assert checked({**EXPORTER, "proxy_url": "u:p@proxy:3128"}, "exporter_url")["proxy_url"] == "http://u:p@proxy:3128"


@pytest.mark.parametrize(
    "url",
    ["", "exporter:10058", "ftp://x", "http://", "http://u:p@x", "http://x/?a=b", "http://x?", "http://x#", "http://[x",
     "http://x:y", "http://x:99999", "http://a b"],
)  # fmt: skip
def test_a_url_that_cannot_be_meant_is_refused(url):
    """Before anything is sent, and without repeating it."""
    with pytest.raises(InvalidInput, match="^exporter_url: it"):
        checked({**EXPORTER, "exporter_url": url}, "exporter_url")


@pytest.mark.parametrize("path", ["/api/v1", "/api/v1/", "/prefix/api/v1", "/api/v1/gate"])
def test_the_path_of_the_api_is_refused_in_a_url(path):
    """It would be asked for twice, and what answers that is a page that is not there."""
    with pytest.raises(InvalidInput, match="has the path of the API, /api/v1; leave that out"):
        checked({**EXPORTER, "exporter_url": "http://x" + path}, "exporter_url")
    assert checked({**EXPORTER, "exporter_url": "http://x/api/v10"}, "exporter_url")["exporter_url"] == "http://x/api/v10"


def test_what_an_environment_in_another_encoding_left_is_refused_by_name(stand):
    """Bytes that are no UTF-8 become halves of characters, which nothing can send."""
    for option in ("token", "password", "proxy_url"):
        params = {**stand.exporter_params, "token": None, "username": "u", "password": "p", option: "http://canary\udcfc"}
        with pytest.raises(InvalidInput, match="^{0}: it holds a control character, U.DCFC".format(option)):
            Exporter(params)


@pytest.mark.parametrize("empty", ["", "\n"])
def test_credentials_that_are_empty_are_refused(empty):
    """Nothing would be known of an account without them."""
    with pytest.raises(InvalidInput, match="^api_secret: "):
        checked({**API, "api_secret": empty}, "api_url")


def test_an_endpoint_is_host_and_port():
    """As a person would type them."""
    assert endpoint("https://user:pw@Exporter.example.org/x") == "exporter.example.org:443"
    assert endpoint("http://[::1]:10058") == "[::1]:10058"
    assert endpoint("proxy:3128") == "proxy:3128"
    assert endpoint("http://u:canary@proxy:none") == "(unreadable)"
