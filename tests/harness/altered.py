"""The exporter with some of its code altered: ``python -m tests.harness.altered FLAG…``.

The variable ``PATROLSERVER_TEST_ALTERED`` names what is altered, with blanks between: ``no-fence`` takes out what keeps
who lost a lease from writing under it and from renewing it, and ``MODULE:NAME=SECONDS`` sets a constant of a module of
the package.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from typing import Any

import sqlalchemy as sa

from patrolserver_exporter.cli import main
from patrolserver_exporter.store.database_time import boot_time
from patrolserver_exporter.store.lease import Lease

PACKAGE = "patrolserver_exporter"
_FENCE = re.compile(r"UPDATE leases SET version = version \+ 1,.* RETURNING", re.DOTALL)
_ONLY_OURS = re.compile(r"((?:leases\.)?(?:owner|epoch|version) = (?:%\(\w+\)s(?:::\w+)?|wanted\.epoch))")


def _without_fence(
    _connection: object, _cursor: object, statement: str, parameters: Any, _context: object, _many: object
) -> tuple[str, Any]:
    """Let a fence find its row whoever has the lease."""
    if _FENCE.search(statement):
        statement, found = _ONLY_OURS.subn(r"(\1 OR TRUE)", statement)
        if not found:
            raise AssertionError(f"the fence has another form: {statement}")
    return statement, parameters


def _renew_whatever_is_ours_no_more(lease: Lease, _engine: sa.Engine) -> None:
    """Ask nobody."""
    for held in lease._held.values():  # noqa: SLF001  # What is altered is inside.
        held.renewed_at = boot_time()


def alter(what: str) -> None:
    """Alter one thing; raises what Python does if there is no such thing."""
    if what == "no-fence":
        sa.event.listen(sa.Engine, "before_cursor_execute", _without_fence, retval=True)
        setattr(Lease, "_renew", _renew_whatever_is_ours_no_more)  # noqa: B010  # mypy takes no other.
        return
    place, _, value = what.partition("=")
    name, _, constant = place.partition(":")
    module = importlib.import_module(f"{PACKAGE}.{name}")
    before = getattr(module, constant)
    setattr(module, constant, type(before)(value))


if __name__ == "__main__":
    for one in os.environ.get("PATROLSERVER_TEST_ALTERED", "").split():
        alter(one)
    sys.exit(main())
