from __future__ import annotations

import pytest
from tests.unit.sync.accounts import configured

from patrolserver_exporter.config.schema import ServerFilter
from patrolserver_exporter.sync.rules import Rules


@pytest.mark.parametrize(
    ("include", "exclude", "name", "watched"),
    [
        (("*",), (), "web.example.org", True),
        (("*",), ("*.lab.example.org",), "a.lab.example.org", False),
        (("*",), ("*.lab.example.org",), "A.LAB.EXAMPLE.ORG", False),
        (("web-?",), (), "Web-1", True),
        (("web-?",), (), "web-10", False),
        (("a", "b"), ("b",), "b", False),
        (("[ab]*",), (), "b1\n2", True),
    ],
)
def test_globs_choose_servers(include: tuple[str, ...], exclude: tuple[str, ...], name: str, watched: bool) -> None:  # noqa: FBT001  # by name
    """One of include and none of exclude, capitals and small letters alike, over the whole name."""
    config = configured(servers=ServerFilter(include=include, exclude=exclude))
    assert Rules.of(config, config.accounts[0]).watches(name) is watched
