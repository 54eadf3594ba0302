from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from patrolserver_exporter.config.load import load_config
from patrolserver_exporter.config.told import as_yaml, changes, with_what_needs_a_restart

if TYPE_CHECKING:
    from pathlib import Path

    from patrolserver_exporter.config.schema import Config

TEXT = """\
accounts:
  - name: main
    key: canary-key-0123456789
    secret: !env SECRET
    webhook_tokens: [!file token]
    proxy_url: http://user:canary-proxy@proxy:3128
  - { name: plain, key: !env SECRET, secret: canary, proxy_url: "http://proxy:3128" }
webhook: { allowed_networks: [192.0.2.0/24] }
issues:
  waivers: [{ server: "web-*", software: php, until: 2099-01-31, reason: "in Q1" }]
gate:
  policies: { production: { max_age: 6h, grace: { high: 7d } } }
store: { url: "postgresql+psycopg://user:canary-database@host/db", retention: 90d }
api: { tokens: [{ name: ansible, token: canary-token-0123456789, scopes: [refresh, read] }] }
"""
ENVIRON = {"SECRET": "canary-secret-0123456789"}


def load(folder: Path, text: str = TEXT) -> Config:
    (folder / "token").write_text("canary-hook-0123456789\n")
    (folder / "patrolserver.yml").write_text(text)
    return load_config(folder / "patrolserver.yml", ENVIRON).config


def test_everything_is_shown_and_no_secret(tmp_path: Path) -> None:
    """Defaults too, as they would be written; a secret shows where it is from."""
    text = as_yaml(load(tmp_path))
    assert "canary" not in text
    shown: dict[str, Any] = yaml.safe_load(text)
    main, plain = shown["accounts"]
    assert main["key"] == "<secret>"
    assert main["secret"] == "<secret of environment SECRET>"
    assert main["webhook_tokens"] == [f"<secret of file {tmp_path / 'token'}>"]
    assert main["proxy_url"] == "http://***@proxy:3128 (proxy_url)"
    assert plain["proxy_url"] == "http://proxy:3128 (proxy_url)"
    assert main["servers"] == {"include": ["*"], "exclude": []}
    assert shown["store"]["url"] == "postgresql+psycopg://user:<secret>@host/db"
    assert shown["store"]["retention"] == "90d"
    assert shown["poll"]["interval"] == "15m"
    assert shown["webhook"]["allowed_networks"] == ["192.0.2.0/24"]
    assert shown["issues"]["waivers"][0]["until"] == "2099-01-31"
    assert shown["gate"]["policies"]["production"]["max_age"] == "6h"
    assert shown["gate"]["policies"]["production"]["grace"]["high"] == "7d"
    assert shown["api"]["tokens"] == [{"name": "ansible", "token": "<secret>", "scopes": ["read", "refresh"]}]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("6h", "6h", ()),
        ("6h", "7h", ("gate.policies[production].max_age",)),
        ("name: plain", "name: other", ("accounts[plain] (removed)", "accounts[other] (new)")),
        ("canary-key-0123456789", "another-key", ("accounts[main].key",)),
        ("refresh, read", "read", ("api.tokens[ansible].scopes",)),
        ("in Q1", "in Q2", ("issues.waivers",)),
        ("production: {", "staging: {", ("gate.policies[production] (removed)", "gate.policies[staging] (new)")),
        ("90d", "30d", ("store.retention",)),
        ("host/db", "host/other", ("store.url",)),
        ("webhook: {", "poll: { interval: 5m }\nwebhook: {", ("poll.interval",)),
    ],
)
def test_what_another_configuration_changes_is_named(
    before: str, after: str, expected: tuple[str, ...], tmp_path: Path
) -> None:
    """By its key, and without its value, which may be a secret."""
    assert changes(load(tmp_path), load(tmp_path, TEXT.replace(before, after))) == expected


def test_what_needs_a_restart_stays(tmp_path: Path) -> None:
    """And everything else is taken over."""
    in_force = load(tmp_path)
    wanted = load(tmp_path, TEXT.replace("host/db", "host/other").replace("90d", "30d"))
    config = with_what_needs_a_restart(wanted, in_force)
    assert config.store == replace(wanted.store, url=in_force.store.url)
    assert changes(in_force, config) == ("store.retention",)
