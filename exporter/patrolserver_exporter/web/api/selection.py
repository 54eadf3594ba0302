"""Which servers a request means, with an answer for what is not clear."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patrolserver_exporter.globs import any_matches
from patrolserver_exporter.store import queries, selection
from patrolserver_exporter.store.selection import MAX_GLOBS, Selector, find
from patrolserver_exporter.web.api.conversion import time_of
from patrolserver_exporter.web.http.problems import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import sqlalchemy as sa

    from patrolserver_exporter.store.queries import ServerKey


def selectors_of(asked: Iterable[int | str]) -> tuple[Selector, ...]:
    """Read them, each once; a 400 when there are too many globs."""
    try:
        return selection.selectors_of(asked)
    except selection.TooManyGlobs as error:
        raise ApiError(400, str(error)) from None


def only_one(connection: sa.Connection, asked: str, account: str | None, watched: Sequence[str] = ()) -> ServerKey:
    """The server that a path means; a 404 when there is none, a 409 that tells them apart when there are several.

    ``watched`` are the accounts that there are.
    """
    selector = Selector.of(asked, globs=False)
    servers = find(connection, [selector], watched if account is None else (account,))[selector]
    # The id goes before the name: whoever is called like another's id can still be asked for by its own.
    servers = [server for server in servers if server.server_id == selector.number] or servers
    if not servers:
        raise _missing(connection, selector, account, watched)
    if len(servers) > 1:
        accounts = sorted({server.account for server in servers})
        ids = sorted({server.server_id for server in servers})
        ask = "say which with ?account=" if len(accounts) > 1 else "ask by id"
        detail = f"There are {len(servers)} servers {asked!r}; {ask}."
        raise ApiError(409, detail, accounts=accounts, ids=ids)
    return servers[0].key


def _missing(connection: sa.Connection, selector: Selector, account: str | None, watched: Sequence[str]) -> ApiError:
    """A 404, that tells of a server that was there once."""
    accounts = watched if account is None else (account,)
    gone = [] if selector.name is None else queries.gone_servers(connection, selector.number, selector.name, accounts)
    where = "" if account is None else f" in account {account!r}"
    if not gone:
        return ApiError(404, f"There is no server {selector.asked!r}{where}; /api/v1/servers lists them.")
    removed = [
        {"account": server.account, "id": server.server_id, "name": server.name, "removed_at": _rfc3339(at)}
        for server, at in gone
    ]
    detail = (
        f"There is no server {selector.asked!r}{where} any more: account {removed[0]['account']} lost it at"
        f" {removed[0]['removed_at']}. It was removed at PatrolServer, or servers.include and servers.exclude leave it"
        " out."
    )
    return ApiError(404, detail, removed=removed)


def _rfc3339(at: float) -> str:
    return time_of(at).isoformat(timespec="seconds").replace("+00:00", "Z")


def any_glob(globs: Sequence[str]) -> Callable[[str], bool] | None:
    """Whether a text matches one of the globs; ``None`` when there are none."""
    if not globs:
        return None
    if len(globs) > MAX_GLOBS:
        raise ApiError(400, f"There are {len(globs)} globs, and {MAX_GLOBS} are allowed.")
    return lambda text: any_matches(globs, text)
