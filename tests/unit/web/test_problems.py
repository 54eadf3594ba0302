from __future__ import annotations

import json

from patrolserver_exporter.web.http.requests import Problem


def test_problem() -> None:
    """A problem is JSON with the members of RFC 9457, and more where there are more."""
    problem = Problem(409, detail="Which web1?", accounts=["main", "lab"], headers={"retry-after": "1"})

    assert problem.status_code == 409
    assert problem.headers["content-type"] == "application/problem+json"
    assert problem.headers["retry-after"] == "1"
    assert json.loads(bytes(problem.body)) == {
        "type": "about:blank",
        "title": "Conflict",
        "status": 409,
        "detail": "Which web1?",
        "accounts": ["main", "lab"],
    }


def test_odd_problem() -> None:
    """Neither an odd status nor odd text breaks the answer."""
    assert json.loads(bytes(Problem(599, detail="\udcff\n").body)) == {
        "type": "about:blank",
        "title": "Error",
        "status": 599,
        "detail": "\udcff\n",
    }
