from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from patrolserver_exporter.gate.policy import AskedPolicy
from patrolserver_exporter.gate.verdict import ReasonCode
from patrolserver_exporter.web.api.catalogue import OPERATIONS
from patrolserver_exporter.web.api.openapi import COMMON_PROBLEMS, document

DOCS = Path(__file__).parents[3] / "docs"
NAMED = [pytest.param(operation, id=operation.name) for operation in OPERATIONS]


def described() -> Any:
    return msgspec.json.decode(document(OPERATIONS, ""))


@pytest.mark.parametrize("operation", NAMED)
def test_every_example_fits_its_type(operation: Any) -> None:
    """An example that the types do not take would be a lie."""
    if operation.answer is not None:
        shown = msgspec.convert(operation.example, operation.answer)
        assert msgspec.to_builtins(shown) == msgspec.to_builtins(msgspec.convert(operation.example, operation.answer))
        assert named_in(operation.example) == named_in(msgspec.to_builtins(shown))
    if operation.body is not None:
        msgspec.convert(operation.body_example, operation.body)


def named_in(example: Any) -> list[set[str]]:
    return [set(one) for one in (example if isinstance(example, list) else [example])]


def test_every_reference_leads_somewhere() -> None:
    """No schema is named that is not there, and none is there for nothing but being a member."""
    text = document(OPERATIONS, "").decode()
    named = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert named == set(described()["components"]["schemas"])


def test_every_status_is_documented_where_it_can_happen() -> None:
    """Each operation tells its success and all errors, as problems with an example of what to do."""
    for path, methods in described()["paths"].items():
        for method, one in methods.items():
            problems = {int(status) for status in one["responses"] if int(status) >= 400}
            assert set(COMMON_PROBLEMS) <= problems, (method, path)
            for status in problems:
                problem = one["responses"][str(status)]["content"]["application/problem+json"]
                assert problem["example"]["status"] == status
                assert problem["example"]["detail"]


def test_a_prefix_stands_in_the_server_url() -> None:
    """Behind a prefix the document leads to where the exporter is."""
    assert msgspec.json.decode(document(OPERATIONS, "/patrol"))["servers"] == [{"url": "/patrol"}]


def test_the_page_has_every_call() -> None:
    """docs/api.md names each call once, and none that is not there."""
    page = (DOCS / "api.md").read_text()
    calls = re.findall(r"^\| `(GET|POST|DELETE) (/[^`]*)` \|", page, re.MULTILINE)
    assert calls == [(one.method, one.path.replace(":path", "")) for one in in_order(calls)]
    assert len(calls) == len(OPERATIONS)


def in_order(calls: list[tuple[str, str]]) -> list[Any]:
    known = {(one.method, one.path.replace(":path", "")): one for one in OPERATIONS}
    return [known[call] for call in calls]


def test_the_page_has_every_filter_and_status() -> None:
    """docs/api.md explains each query parameter and each status."""
    page = (DOCS / "api.md").read_text()
    for operation in OPERATIONS:
        for name in operation.query.__struct_fields__:
            assert f"`{name}`" in page or f"?{name}=" in page or f"&{name}=" in page, name
        for status in (*COMMON_PROBLEMS, *operation.problems):
            assert re.search(rf"^\| [0-9, ]*{status}", page, re.MULTILINE), status


def test_the_gates_page_has_the_whole_policy_and_every_reason() -> None:
    """docs/gate.md explains each member of the policy and each code."""
    page = (DOCS / "gate.md").read_text()
    for member in AskedPolicy.__struct_fields__:
        assert f"| `{member}` |" in page, member
    for code in ReasonCode:
        assert code is ReasonCode.LIMIT_EXCEEDED or f"`{code}`" in page, code
