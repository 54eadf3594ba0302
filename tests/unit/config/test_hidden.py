from __future__ import annotations

from patrolserver_exporter.config.hidden import hidden_values
from patrolserver_exporter.config.schema import Account, Api, ApiToken, Config, Store
from patrolserver_exporter.config.secret import Secret


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
