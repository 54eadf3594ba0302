from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from tests.harness.pages import Accounts, Site

from patrolserver_exporter.web.access import ANYONE, BearerTokens, Principal
from patrolserver_exporter.web.pages.connect import connect

if TYPE_CHECKING:
    from patrolserver_exporter.store import Store
    from patrolserver_exporter.web.pages.connect import Connect

USER = Principal("prom: 'x\"", frozenset())


@pytest.fixture
def site(store: Store) -> Site:
    return Site(store, Accounts(()))


def connected(site: Site, host: str = "exporter.example.org:10058", *, principal: Principal = ANYONE) -> Connect:
    scope = {"type": "http", "scheme": "http", "headers": [(b"host", host.encode("latin-1"))]}
    return connect(site.context(), scope, principal)


def scrape(found: Connect) -> dict[str, Any]:
    (job,) = yaml.safe_load(found.scrape_config)["scrape_configs"]
    assert isinstance(job, dict)
    return job


def test_the_address_is_the_one_that_was_asked(site: Site) -> None:
    """What worked for the browser goes into the snippet."""
    job = scrape(connected(site))
    assert job == {"job_name": "patrolserver", "static_configs": [{"targets": ["exporter.example.org:10058"]}]}


def test_the_external_url_outranks_the_host(site: Site) -> None:
    """Behind a proxy, scheme, host and path are those that people use."""
    site.external_url = "https://mon.example.org/patrol"
    found = connected(site)
    job = scrape(found)
    assert (job["scheme"], job["metrics_path"]) == ("https", "/patrol/metrics")
    assert job["static_configs"] == [{"targets": ["mon.example.org"]}]
    assert found.webhook_url == "https://mon.example.org/patrol/webhook/<token>"


@pytest.mark.parametrize("host", ['evil"]\n- x', "a b", "", "<script>", "host:port", "caf\xe9:1"])
def test_a_host_that_is_none_is_not_repeated(site: Site, host: str) -> None:
    """A forged Host header gets into no snippet."""
    assert scrape(connected(site, host))["static_configs"] == [{"targets": ["this-host:10058"]}]


@pytest.mark.parametrize(("host", "local"), [("127.0.0.1:1", True), ("[::1]:1", True), ("10.0.0.1:1", False)])
def test_it_is_said_when_an_address_only_works_here(site: Site, host: str, local: bool) -> None:  # noqa: FBT001  # a case
    """Somebody who copies a loopback address is warned."""
    assert connected(site, host).only_local is local


def test_a_user_gets_a_snippet_with_basic_auth(site: Site) -> None:
    """Where a password is needed, Prometheus needs one too; odd names stay names."""
    assert scrape(connected(site, principal=USER))["basic_auth"]["username"] == USER.name


def test_a_token_for_scrapes_is_in_the_snippet(site: Site) -> None:
    """Where the metrics need one, a snippet without it would not work; a user has a password instead."""
    site.tokens = BearerTokens(guards_metrics=True)
    assert scrape(connected(site))["authorization"] == {"credentials_file": "/path/to/token"}
    assert "authorization" not in scrape(connected(site, principal=USER))


def test_webhooks_with_a_listener_of_their_own_have_no_address_here(site: Site) -> None:
    """No URL is shown that would not work."""
    site.webhook_here = False
    assert connected(site).webhook_url is None
