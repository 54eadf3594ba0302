from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from patrolserver_exporter.config.hidden import hidden_values
from patrolserver_exporter.config.schema import Account, Api, ApiToken, Config, Store
from patrolserver_exporter.config.secret import Secret
from patrolserver_exporter.config.told import as_yaml
from patrolserver_exporter.store.engines import redacted


def test_everything_that_must_not_show() -> None:
    """Secrets, tokens, and the passwords within URLs, as written and decoded, are hidden."""
    account = Account(
        key=Secret.literal("the-key"),
        secret=Secret.literal("the-secret"),
        webhook_tokens=(Secret.literal("hook"),),
        proxy_url=Secret.literal("http://user:proxy%2Fpw@h:1"),
    )
    config = Config(
        accounts=(account, Account(key=Secret.literal("second-key"), secret=Secret.literal("second-secret"))),
        api=Api(tokens=(ApiToken(name="a", token=Secret.literal("api")),)),
        store=Store(url="postgresql+psycopg://u:p@ss/w@h/d"),
    )
    secrets = ["the-key", "the-secret", "hook", "http://user:proxy%2Fpw@h:1", "second-key", "second-secret", "api"]
    assert hidden_values(config) == {*secrets, "proxy%2Fpw", "proxy/pw", "p@ss/w"}


def test_the_passwords_of_a_database_are_in_its_parameters_too() -> None:
    """That of its user, that of a client's key, and what somebody may have misspelt; paths are none."""
    url = "postgresql+psycopg://u@h/d?sslmode=require&sslkey=/k&sslpassword=of%20key&password=of-user&passfile=/p"
    config = Config(store=Store(url=url))
    assert hidden_values(config) == {"of%20key", "of key", "of-user"}
    shown = parse_qs(urlsplit(redacted(url)).query)
    assert (shown["password"], shown["sslpassword"], shown["passfile"]) == (["***"], ["***"], ["/p"])
    assert "sslpassword=<secret>&password=<secret>&passfile=/p" in as_yaml(config)
