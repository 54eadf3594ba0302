"""What ``/-/ready`` says of an account that does not do as it should."""

from __future__ import annotations

from typing import Any

import pytest
from tests.harness.ticking import START

from patrolserver_exporter.app.service import troubles_of
from patrolserver_exporter.sync.accounts import AccountStatus


def status(**fields: Any) -> AccountStatus:
    """An account that is fine, but for these."""
    fine: dict[str, Any] = {
        "servers": 3,
        "poll_interval": 900.0,
        "trouble": None,
        "credentials_refused": False,
        "webhook": True,
        "list_complete": True,
    }
    return AccountStatus(name="main", **(fine | fields))


def test_an_account_that_is_fine_has_nothing_to_tell() -> None:
    """No trouble, no line."""
    assert troubles_of(status()) == []


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"trouble": "account main: refused"}, "Account main: refused"),
        (
            {"pause_until": START, "pause_reason": "status 429"},
            (
                "Account main makes no calls until 2027-01-15 08:00:00 UTC, because the API asked to wait: status 429. "
                "A refresh or a reload allows one try."
            ),
        ),
        (
            {"list_complete": False, "list_partial_because": ("total is 14", "success is false")},
            "The server list of account main is a part of the whole: total is 14; success is false.",
        ),
        (
            {"servers_missing": 3},
            "The server list of account main suddenly lacks 3 servers; another list has to confirm it.",
        ),
    ],
)
def test_each_trouble_is_a_sentence(fields: dict[str, Any], told: str) -> None:
    """With the account, the reason, and what ends it."""
    assert troubles_of(status(**fields)) == [told]
