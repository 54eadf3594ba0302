from __future__ import annotations

from pathlib import Path

import pytest

from patrolserver_exporter.config.hidden import hidden_values
from patrolserver_exporter.config.load import load_config
from patrolserver_exporter.config.problem import ConfigError
from patrolserver_exporter.config.proxy import VARIABLES, is_exempt, shown

ENVIRON = {"PATROLSERVER_KEY": "the-key", "PATROLSERVER_SECRET": "the-secret"}
PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def proxy_of(api_url: str = "https://api.patrolserver.com", **environ: str) -> str | None:
    """The proxy of the environment's account, as it may be shown."""
    (account,) = load_config(None, {**ENVIRON, "PATROLSERVER_API_URL": api_url, **environ}).config.accounts
    return account.proxy_url and shown(account.proxy_url)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"HTTPS_PROXY": ""}, None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "http://proxy:3128 (HTTPS_PROXY)"),
        ({"https_proxy": "http://proxy:3128/"}, "http://proxy:3128 (https_proxy)"),
        ({"HTTPS_PROXY": "proxy:3128"}, "http://proxy:3128 (HTTPS_PROXY)"),
        ({"HTTPS_PROXY": "http://canary:canary@proxy:3128"}, "http://***@proxy:3128 (HTTPS_PROXY)"),
        ({"HTTPS_PROXY": "http://canary@proxy:3128"}, "http://***@proxy:3128 (HTTPS_PROXY)"),
        ({"HTTP_PROXY": "http://proxy:3128"}, None),
        (
            {"HTTPS_PROXY": "http://one:1", "PATROLSERVER_PROXY_URL": "http://two:2"},
            "http://two:2 (PATROLSERVER_PROXY_URL)",
        ),
        ({"HTTPS_PROXY": "http://one:1", "NO_PROXY": "patrolserver.com"}, None),
        ({"HTTPS_PROXY": "http://one:1", "no_proxy": "other.org"}, "http://one:1 (HTTPS_PROXY)"),
        (
            {"PATROLSERVER_PROXY_URL": "http://two:2", "NO_PROXY": "*"},
            "http://two:2 (PATROLSERVER_PROXY_URL)",
        ),
    ],
)
def test_the_environment_names_the_proxy(environ: dict[str, str], expected: str | None) -> None:
    """By the scheme of the API's URL; our own variable goes before the usual ones, and is meant as it stands."""
    assert proxy_of(**environ) == expected


def test_plain_http_has_a_variable_of_its_own() -> None:
    """As for all programs."""
    both = {"HTTPS_PROXY": "http://tls:1", "HTTP_PROXY": "http://plain:1"}
    assert proxy_of("http://127.0.0.1:9", **both) == "http://plain:1 (HTTP_PROXY)"


def test_a_proxy_with_a_password_may_be_in_a_file(tmp_path: Path) -> None:
    """Its own variable says which."""
    (tmp_path / "proxy").write_text("http://canary:canary@proxy:3128\n")
    (tmp_path / "proxy").chmod(0o600)
    file = str(tmp_path / "proxy")
    assert proxy_of(PATROLSERVER_PROXY_URL_FILE=file) == f"http://***@proxy:3128 (file {file})"


def test_what_the_account_says_goes_before_the_environment(tmp_path: Path) -> None:
    """Each account may have its own."""
    file = tmp_path / "patrolserver.yml"
    file.touch(mode=0o600)
    file.write_text("accounts: [{name: a, key: k, secret: s, proxy_url: 'http://own:1'}, {name: b, key: k, secret: s}]")
    accounts = load_config(file, {"HTTPS_PROXY": "http://env:2"}).config.accounts
    assert [account.proxy_url and shown(account.proxy_url) for account in accounts] == [
        "http://own:1 (proxy_url)",
        "http://env:2 (HTTPS_PROXY)",
    ]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HTTPS_PROXY", "socks5://canary:canary@proxy:1080"),
        ("https_proxy", "http://"),
        ("PATROLSERVER_PROXY_URL", "http://proxy:3128/path"),
        ("PATROLSERVER_PROXY_URL_FILE", "/nowhere/proxy"),
    ],
)
def test_a_proxy_that_cannot_be_used_stops_the_start(variable: str, value: str) -> None:
    """Going without it would take the calls where they must not go; the variable is named once, and its value not."""
    with pytest.raises(ConfigError) as caught:
        proxy_of(**{variable: value})
    assert str(caught.value).startswith(f"environment: {variable}: ")
    assert "canary" not in str(caught.value)
    assert len(caught.value.errors) == 1


def test_a_variable_and_its_file_together_are_a_mistake() -> None:
    """As with the others."""
    with pytest.raises(ConfigError, match="PATROLSERVER_PROXY_URL_FILE too"):
        proxy_of(PATROLSERVER_PROXY_URL="http://a:1", PATROLSERVER_PROXY_URL_FILE="/b")


@pytest.mark.parametrize(
    ("no_proxy", "url", "exempt"),
    [
        ("*", "https://api.example.org", True),
        ("api.example.org", "https://api.example.org", True),
        ("API.Example.org.", "https://api.example.org", True),
        ("example.org", "https://api.example.org", True),
        (".example.org", "https://api.example.org", True),
        ("*.example.org", "https://api.example.org", True),
        ("ample.org", "https://api.example.org", False),
        ("one, example.org ,two", "https://api.example.org", True),
        ("one example.org", "https://api.example.org", True),
        ("api.example.org:443", "https://api.example.org", True),
        ("api.example.org:8443", "https://api.example.org", False),
        ("api.example.org:8443", "https://api.example.org:8443", True),
        ("127.0.0.1", "http://127.0.0.1:9", True),
        ("127.0.0.0/8", "http://127.0.0.1:9", True),
        ("10.0.0.0/8", "http://127.0.0.1:9", False),
        ("::1", "http://[::1]:9", True),
        ("[::1]:9", "http://[::1]:9", True),
        ("localhost", "http://127.0.0.1:9", False),
        ("[", "https://api.example.org", False),
        ("", "https://api.example.org", False),
        (",. ,*x", "https://api.example.org", False),
    ],
)
def test_who_is_left_out(no_proxy: str, url: str, *, exempt: bool) -> None:
    """Names, domains, networks and addresses, each perhaps with a port."""
    assert is_exempt(url, no_proxy) is exempt


def test_only_credentials_of_a_proxy_are_hidden() -> None:
    """Its address is told in the log, which would mask it otherwise."""
    plain = load_config(None, {**ENVIRON, "HTTPS_PROXY": "http://proxy:3128"}).config
    assert "http://proxy:3128" not in hidden_values(plain)
    secret = load_config(None, {**ENVIRON, "HTTPS_PROXY": "http://user:canary%2F@proxy:3128"}).config
    assert {"canary%2F", "canary/", "http://user:canary%2F@proxy:3128"} <= hidden_values(secret)
    token = load_config(None, {**ENVIRON, "HTTPS_PROXY": "http://canary@proxy:3128"}).config
    assert {"canary", "http://canary@proxy:3128"} <= hidden_values(token)


def test_every_variable_is_documented() -> None:
    """On the page of the configuration."""
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in VARIABLES if f"`{name}`" not in page] == []
