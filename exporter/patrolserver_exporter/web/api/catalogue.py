"""All that the API can do: the one list from which the routes and the OpenAPI document are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patrolserver_exporter.config.schema import Scope as Right
from patrolserver_exporter.web.api import changes, endpoint, examples, fleet, gate, inbox, openapi, status, types
from patrolserver_exporter.web.api.endpoint import Operation, Reply

if TYPE_CHECKING:
    from patrolserver_exporter.web.api.endpoint import Api, Call

_ONE_SERVER = (404, 409)
_BODY = (408, 413, 415)


async def _document(api: Api, _call: Call[Any]) -> Reply:
    return Reply(openapi.document(OPERATIONS, api.context.route_prefix))


OPERATIONS = (
    Operation(
        name="listServers",
        method="GET",
        path="/servers",
        summary="Servers by account and id",
        handler=fleet.servers,
        query=endpoint.ServersQuery,
        answer=types.ServerPage,
        example=examples.SERVERS,
    ),
    Operation(
        name="listServerIssues",
        method="GET",
        path="/servers/{server:path}/issues",
        summary="Issues of one server",
        handler=fleet.server_issues,
        query=endpoint.ServerIssuesQuery,
        answer=types.IssuePage,
        problems=_ONE_SERVER,
        example=examples.ISSUES,
    ),
    Operation(
        name="listServerSoftware",
        method="GET",
        path="/servers/{server:path}/software",
        summary="Software of one server, as its last successful poll showed it",
        handler=fleet.software,
        query=endpoint.SoftwareQuery,
        answer=types.SoftwarePage,
        problems=_ONE_SERVER,
        example=examples.SOFTWARE,
    ),
    Operation(
        name="refreshServer",
        method="POST",
        path="/servers/{server:path}/refresh",
        summary="Poll a server now; follow the operation at the Location",
        handler=fleet.refresh,
        right=Right.REFRESH,
        query=endpoint.OneServer,
        status=202,
        answer=types.OperationReply,
        problems=(*_ONE_SERVER, 429),
        example=examples.OPERATION,
    ),
    Operation(
        name="getServer",
        method="GET",
        path="/servers/{server:path}",
        summary="One server, by id or name",
        handler=fleet.server,
        query=endpoint.OneServer,
        answer=types.Server,
        problems=_ONE_SERVER,
        example=examples.SERVER,
    ),
    Operation(
        name="listIssues",
        method="GET",
        path="/issues",
        summary="Issues of all servers, in the order in which they became known",
        handler=fleet.issues,
        query=endpoint.IssuesQuery,
        answer=types.IssuePage,
        example=examples.ISSUES,
    ),
    Operation(
        name="getOperation",
        method="GET",
        path="/operations/{operation}",
        summary="How a refresh stands; forgotten an hour after it was asked for, and at a restart",
        handler=fleet.operation,
        answer=types.OperationReply,
        problems=(404,),
        example=examples.OPERATION_DONE,
    ),
    Operation(
        name="judge",
        method="POST",
        path="/gate",
        summary="The deploy gate: judge servers against a policy; only pass lets a deploy go on",
        handler=gate.gate,
        body=gate.GateBody,
        answer=gate.GateReply,
        problems=_BODY,
        example=examples.GATE,
        body_example=examples.GATE_BODY,
    ),
    Operation(
        name="listChanges",
        method="GET",
        path="/changes",
        summary="What happened to issues, each change once and in order, by long poll",
        handler=changes.changes,
        query=endpoint.ChangesQuery,
        answer=types.ChangePage,
        problems=(410,),
        example=examples.CHANGES,
    ),
    Operation(
        name="listDeliveries",
        method="GET",
        path="/inbox",
        summary="Webhook deliveries by id",
        handler=inbox.inbox,
        right=Right.INBOX,
        query=endpoint.InboxQuery,
        answer=types.InboxPage,
        example=examples.INBOX,
    ),
    Operation(
        name="getDelivery",
        method="GET",
        path="/inbox/{delivery}",
        summary="One delivery, and the API's reply where it could not be understood",
        handler=inbox.show,
        right=Right.INBOX,
        answer=types.InboxItemWithBody,
        problems=(404,),
        example=examples.INBOX_ITEM_WITH_BODY,
    ),
    Operation(
        name="dropDelivery",
        method="DELETE",
        path="/inbox/{delivery}",
        summary="Remove a delivery",
        handler=inbox.drop,
        right=Right.INBOX,
        status=204,
        problems=(404,),
    ),
    Operation(
        name="replayDelivery",
        method="POST",
        path="/inbox/{delivery}/replay",
        summary="Fetch a delivery's event again, whatever became of it; it takes effect as of its reception",
        handler=inbox.replay,
        right=Right.INBOX,
        status=202,
        answer=types.InboxItem,
        problems=(404,),
        example=examples.INBOX_ITEM | {"state": "received", "attempts": 0, "last_error": None},
    ),
    Operation(
        name="getStatus",
        method="GET",
        path="/status",
        summary="The exporter itself: accounts and the inbox",
        handler=status.status,
        answer=types.Status,
        example=examples.STATUS,
    ),
    Operation(
        name="getOpenapi",
        method="GET",
        path="/openapi.json",
        summary="This document",
        handler=_document,
    ),
)
