from __future__ import annotations

import pytest

from patrolserver_exporter.issues.spread import SoftwareSpread
from patrolserver_exporter.web.overview import Servers
from patrolserver_exporter.web.pages.lists import SoftwareGroup, software_line
from patrolserver_exporter.web.pages.paths import Paths, Wanted


@pytest.mark.parametrize(
    ("known", "unknown", "waived", "shown"),
    [
        (3, 0, 0, "3"),
        (0, 2, 0, "2 (state unknown)"),
        (3, 2, 0, "5 (state unknown on 2)"),
        (0, 0, 4, "4"),
    ],
)
def test_a_version_tells_where_its_state_is_not_known(known: int, unknown: int, waived: int, shown: str) -> None:
    """Those servers are not among the ones on which it is known not to be fine."""
    spread = SoftwareSpread("nginx", "1.26.2")
    spread.servers = {("main", number) for number in range(known)}
    spread.state_unknown = {("main", 100 + number) for number in range(unknown)}
    spread.waived = {("main", 200 + number) for number in range(waived)}
    line = software_line(SoftwareGroup([spread]), Servers(states={}, doubts={}), Wanted(), Paths())
    assert line.versions == (("1.26.2", shown),)
