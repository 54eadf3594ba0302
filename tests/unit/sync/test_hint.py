from __future__ import annotations

from typing import TYPE_CHECKING

from tests.unit.sync.accounts import account

from patrolserver_exporter.logs import LineFormatter, Redactor
from patrolserver_exporter.sync.running import webhook_hint

if TYPE_CHECKING:
    import pytest


def test_the_hint_about_the_webhook_survives_masking(caplog: pytest.LogCaptureFixture) -> None:
    """What stands behind /webhook/ in a line is masked, so the advice must not need it."""
    caplog.set_level("INFO")
    webhook_hint(account(webhook_tokens=()))
    (record,) = caplog.records
    line = LineFormatter("logfmt", Redactor()).format(record)
    assert "***" not in line
    assert "https://THIS-HOST/webhook/ with the token behind it" in line
