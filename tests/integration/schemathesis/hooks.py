"""What Schemathesis has to know of the exporter: texts of its own formats, and names that are there.

Runs in Schemathesis' own environment, so it imports nothing of ours.
"""

from __future__ import annotations

import base64
import json
import os
from typing import Any

import schemathesis  # type: ignore[import-not-found]  # It is in an environment of its own.
from hypothesis import strategies as st

NAMES = json.loads(os.environ["HOSTILE_NAMES"])


def cursor(members: dict[str, Any]) -> str:
    text = json.dumps(members, separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


LETTERS = st.characters(categories=["L", "N", "P", "S"])
LINES = st.text(LETTERS, min_size=1, max_size=40)
DURATIONS = st.builds(
    lambda number, unit: f"{number}{unit}", st.integers(0, 999), st.sampled_from(["s", "m", "h", "d"])
)

# Which list a cursor belongs to is only known once the request is there: see below.
schemathesis.openapi.format("cursor", st.just("CURSOR"))
schemathesis.openapi.format("line", LINES)
# Only those that are there are no mistake.
schemathesis.openapi.format("account-name", st.just("main"))
schemathesis.openapi.format("label", st.builds("team={}".format, LINES))
schemathesis.openapi.format("go-duration", DURATIONS)
# The one that there is without a configuration.
schemathesis.openapi.format("policy-name", st.just("builtin"))


@schemathesis.hook  # type: ignore[untyped-decorator]  # as above
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Put cursors of the right list in, keep waits short, and ask for servers that are there."""
    query = case.query or {}
    kind = case.path.rpartition("/")[2]
    for name in ("cursor", "after"):
        if query.get(name) == "CURSOR":
            place = len(json.dumps(query, default=str)) % 40
            places: dict[str, dict[str, Any]] = {
                "servers": {"k": "s", "account": "main", "server_id": place},
                "issues": {"k": "i", "row": place},
                "software": {"k": "w", "name": "php", "location": "/", "ordinal": place},
                "exploits": {"k": "fx", "name": "CVE-2026-0001", "named_by": "cve", "software": ""},
                "changes": {"k": "c", "row": place},
                "inbox": {"k": "d", "row": place},
                "fleet": {"k": "fw", "name": "php", "version": str(place)},
            }
            members = places["fleet" if case.path == "/api/v1/software" else kind]
            query[name] = cursor(members)
    wait = query.get("wait")
    if isinstance(wait, (int, float)) and not isinstance(wait, bool) and 0 < wait <= 60:
        query["wait"] = 0.01


@schemathesis.hook  # type: ignore[untyped-decorator]  # as above
def map_path_parameters(context: Any, path_parameters: Any) -> Any:
    """Half of the servers that are asked for exist, and half of the deliveries."""
    if path_parameters:
        for name, value in path_parameters.items():
            if name == "server" and isinstance(value, str) and len(value) % 2:
                path_parameters[name] = NAMES[len(value) % len(NAMES)]
            if name == "delivery" and isinstance(value, int) and value % 2:
                path_parameters[name] = value % 30 + 1
    return path_parameters
