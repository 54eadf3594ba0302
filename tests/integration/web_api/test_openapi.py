"""The document beside what is served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from tests.harness.api import put_server

from patrolserver_exporter.web.api import types
from patrolserver_exporter.web.api.catalogue import OPERATIONS
from patrolserver_exporter.web.api.openapi import ROOT, document

if TYPE_CHECKING:
    from tests.harness.api import ServedApi


def described() -> Any:
    return msgspec.json.decode(document(OPERATIONS, ""))


def test_the_document_has_every_operation_and_no_other(api: ServedApi) -> None:
    """What is served is what the routes are made from."""
    served = api.get("/openapi.json").json()
    assert served == described()
    assert served["openapi"] == "3.1.0"
    calls = {(method.upper(), path) for path, methods in served["paths"].items() for method in methods}
    assert calls == {(one.method, ROOT + one.path.replace(":path", "")) for one in OPERATIONS}


def test_every_documented_path_is_routed(api: ServedApi) -> None:
    """Each path answers to an unknown method with exactly the methods of the document."""
    for path, methods in described()["paths"].items():
        url = api.url + path.replace("{server}", "x").replace("{delivery}", "1").replace("{operation}", "x")
        response = api.session.request("PATCH", url, timeout=10)
        allowed = set(response.headers["allow"].split(", ")) - {"HEAD"}
        assert (response.status_code, allowed) == (405, {method.upper() for method in methods})


def test_answers_fit_the_types_that_the_document_is_made_of(api: ServedApi) -> None:
    """What is sent reads back as the documented type, member for member."""
    api.store.run(lambda unit: put_server(unit, 1, "web1.example.org", polled_at=1000.0))
    for path, kind in (("/servers", types.ServerPage), ("/servers/1", types.Server), ("/status", types.Status)):
        sent = api.get(path).json()
        assert msgspec.json.decode(msgspec.json.encode(msgspec.convert(sent, kind))) == sent


def test_every_parameter_says_what_it_means() -> None:
    """A client made from the document tells its user."""
    operations = [one for methods in described()["paths"].values() for one in methods.values()]
    parameters = [parameter for one in operations for parameter in one["parameters"]]
    assert {parameter["in"] for parameter in parameters} == {"path", "query"}
    assert [parameter["name"] for parameter in parameters if not parameter.get("description")] == []
    assert "`" not in "".join(parameter["description"] for parameter in parameters)
    states = {parameter["description"] for parameter in parameters if parameter["name"] == "state"}
    assert len(states) == 2, "issues and deliveries have states of their own"
