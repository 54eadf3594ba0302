"""The OpenAPI 3.1 document, made from the operations and their types."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

import msgspec

from patrolserver_exporter import __version__
from patrolserver_exporter.web.api import endpoint, types
from patrolserver_exporter.web.http.requests import MEDIA_TYPE, phrase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patrolserver_exporter.web.api.endpoint import Operation

ROOT = "/api/v1"
COMMON_PROBLEMS = (400, 401, 403, 429, 431, 503)
"""What any operation may answer: a wrong parameter, no right, the rate limit, too long a URL, a store or a check that
is too busy."""

_REF = "#/components/schemas/{name}"
_VARIABLE = re.compile(r"\{(\w+)(?::path)?\}")
_VARIABLES: dict[str, dict[str, Any]] = {
    "server": {"description": "Id or name; what is no letter or digit percent-encoded", "schema": {"type": "string"}},
    "operation": {"description": "From the answer to a refresh", "schema": {"type": "string"}},
    "refresh": {"description": "From the answer to a refresh of many servers", "schema": {"type": "string"}},
    "delivery": {"description": "Id", "schema": {"type": "integer", "minimum": 1, "maximum": 2**53 - 1}},
}
_DESCRIPTION = """\
Open issues and outdated software of every server that PatrolServer watches, and the deploy gate.

Times are RFC 3339 in UTC. Ids are numbers up to 2^53-1. Errors are problem documents (RFC 9457) whose `detail` says \
what to do. Lists go on with `cursor` = `next_cursor` until that is null; what comes or goes meanwhile shifts nothing. \
Unknown parameters and members are refused."""


@functools.lru_cache(maxsize=4)
def document(operations: Sequence[Operation], prefix: str) -> bytes:
    """The document as JSON; ``prefix`` is what stands in front of every path."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = ROOT + _VARIABLE.sub(r"{\1}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "patrolserver-exporter",
                "version": __version__,
                "description": _DESCRIPTION,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": prefix or "/"}],
            "security": [{}, {"token": []}, {"user": []}],
            "paths": paths,
            "components": {
                "schemas": _schemas(operations),
                "securitySchemes": {
                    "token": {"type": "http", "scheme": "bearer", "description": "A token of api.tokens"},
                    "user": {"type": "http", "scheme": "basic", "description": "A user of basic_auth_users"},
                },
            },
        }
    )


def _schemas(operations: Sequence[Operation]) -> dict[str, Any]:
    named = [kind for one in operations for kind in (one.answer, one.body) if kind is not None]
    _, schemas = msgspec.json.schema_components([*named, types.Problem], ref_template=_REF)
    return schemas


def _operation(operation: Operation) -> dict[str, Any]:
    statuses = sorted({*COMMON_PROBLEMS, *operation.problems})
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": f"Needs the scope `{operation.right}`, where a token is needed.",
        "parameters": [*_path_parameters(operation), *_query_parameters(operation.query)],
        "responses": {str(operation.status): _success(operation)} | {str(s): _problem(s) for s in statuses},
    }
    if operation.body is not None:
        content: dict[str, Any] = {"schema": _ref(operation.body), "example": operation.body_example}
        described["requestBody"] = {"required": True, "content": {"application/json": content}}
    return described


def _success(operation: Operation) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": phrase(operation.status)}
    if operation.answer is not None:
        content: dict[str, Any] = {"application/json": {"schema": _ref(operation.answer), "example": operation.example}}
        if operation.csv is not None:
            content["text/csv"] = {"schema": {"type": "string"}, "example": f"{operation.csv}\r\n"}
        answer["content"] = content
    elif operation.status != 204:
        answer["content"] = {"application/json": {"schema": {"type": "object"}}}
    if operation.status == 202 and operation.answer in {types.OperationReply, types.FleetRefreshReply}:
        answer["headers"] = {"Location": {"description": "Where to follow it", "schema": {"type": "string"}}}
    return answer


def _problem(status: int) -> dict[str, Any]:
    example = {"type": "about:blank", "title": phrase(status), "status": status, "detail": _DETAILS[status]}
    return {
        "description": phrase(status),
        "content": {MEDIA_TYPE: {"schema": _ref(types.Problem), "example": example}},
    }


_DETAILS = {
    400: "Query parameter limit is wrong: Expected `int` <= 1000.",
    401: "Send a token of api.tokens with the scope read, as Authorization: Bearer.",
    403: "The token ci lacks the scope refresh; add it in api.tokens.",
    404: "There is no server 'web9.example.org'; /api/v1/servers lists them.",
    408: "The body was not complete after 8 seconds.",
    409: "There are 2 servers 'web1.example.org'; say which with ?account=.",
    410: "Changes after this cursor are no longer kept.",
    413: "The body is over 262144 bytes.",
    415: "Send JSON, with Content-Type: application/json.",
    429: "Too many requests; try again later.",
    431: "The request line and headers are over 32768 bytes, or too many.",
    503: "The store cannot serve right now; the exporter's log has the reason. Try again later.",
}


def _path_parameters(operation: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, **_VARIABLES[name]} for name in _VARIABLE.findall(operation.path)
    ]


_PARAMETERS = {
    ("", "account"): "Name of an account",
    ("", "server"): "Id, name, or glob on the name",
    ("", "label"): "A label of accounts[].labels: name=value, or name=glob; name= means servers without it",
    ("", "severity"): "Severity of an issue",
    ("", "kind"): "Kind of an issue",
    ("", "software"): "Glob on the canonical name of software",
    ("", "exploit"): "Glob on the id or the CVE of an exploit",
    ("", "waived"): "Whether a waiver covers the issue, or the exploit that was asked for",
    ("", "limit"): "Items of a page, at most",
    ("", "cursor"): "Where the list goes on: next_cursor of the page before",
    ("", "format"): "json, or csv for the whole list without pages",
    ("", "state"): "Whether open issues are wanted, fixed ones or all",
    ("InboxQuery", "state"): "State of a delivery",
    (
        "",
        "after",
    ): "next_cursor or the id of a change, or latest; without it the oldest change that is kept comes first",
    ("", "wait"): "Seconds to wait for a first change",
}
"""What each parameter means, by its name, and where it means another thing for one query, by that, too."""


def _query_parameters(kind: type[msgspec.Struct]) -> list[dict[str, Any]]:
    schemas, components = msgspec.json.schema_components([kind], ref_template=_REF)
    del schemas
    properties = components[kind.__name__]["properties"]
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": _PARAMETERS.get((kind.__name__, name)) or _PARAMETERS["", name],
            "schema": _plain(schema, components),
        }
        | ({"explode": True, "style": "form"} if endpoint.is_repeatable(kind, name) else {})
        for name, schema in properties.items()
    ]


def _plain(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    """A parameter's schema without references, and without null, which a URL cannot say."""
    if "$ref" in schema:
        referred = components[schema["$ref"].rpartition("/")[2]]
        return {key: value for key, value in referred.items() if key != "title"}
    if "anyOf" in schema:
        options = [_plain(one, components) for one in schema["anyOf"] if one != {"type": "null"}]
        return options[0] if len(options) == 1 else {"anyOf": options}
    plain = {key: value for key, value in schema.items() if key != "default" or value not in (None, [])}
    if "enum" in plain:
        plain["enum"] = [value for value in plain["enum"] if value is not None]
    if "items" in plain:
        plain["items"] = _plain(plain["items"], components)
    return plain


def _ref(kind: Any) -> dict[str, Any]:
    schema: dict[str, Any] = msgspec.json.schema_components([kind], ref_template=_REF)[0][0]
    return schema
