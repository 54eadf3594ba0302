"""Whose a server is: globs on its name give it labels."""

from __future__ import annotations

import pytest

from patrolserver_exporter.config.problem import Unfit
from patrolserver_exporter.config.schema import labels_of
from patrolserver_exporter.config.values import LABELS_IN_USE, label_name

RULES = {
    "*": {"team": "nobody"},
    "web-*": {"team": "web", "tier": "front"},
    "*.staging.example.org": {"environment": "staging"},
    "[2001:db8::1]": {"team": "network"},
}


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("db-1.example.org", {"team": "nobody"}),
        ("WEB-1.staging.example.org", {"environment": "staging", "team": "web", "tier": "front"}),
        ("[2001:db8::1]", {"team": "network"}),
        ("", {"team": "nobody"}),
    ],
)
def test_later_globs_win_label_by_label(name: str, labels: dict[str, str]) -> None:
    """What an earlier glob says of another label stays; the labels come by name."""
    assert list(labels_of(RULES, name).items()) == sorted(labels.items())


@pytest.mark.parametrize("name", ["__name__", "__x", "1a", "a-b", "a b", "ä", "", "x" * 65, *sorted(LABELS_IN_USE)])
def test_a_name_that_no_label_may_have_is_refused(name: str) -> None:
    """Names that Prometheus does not take or keeps for itself, those of our metrics, ``job`` and ``instance``."""
    with pytest.raises(Unfit):
        label_name(name)


@pytest.mark.parametrize("name", ["team", "_x", "Environment", "a1", "x" * 64])
def test_any_other_name_is_taken(name: str) -> None:
    """Letters, digits and underscores."""
    assert label_name(name) == name
