"""What ``doctor`` looks at, one finding after the other: accounts, store, the running exporter and its webhook's URL.

It changes nothing: it reads no state file, writes no state, and the deliveries that it makes up are not kept.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import warnings
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec
import requests
import sqlalchemy as sa
import urllib3

from patrolserver_exporter.inbox.intake import CHECKUP
from patrolserver_exporter.patrolserver.client import PatrolServerClient
from patrolserver_exporter.patrolserver.errors import PatrolServerError, Unreachable
from patrolserver_exporter.store import StoreError, check_usable, look_over, why_unusable
from patrolserver_exporter.store.engines import create_reading_engine, database_file, redacted
from patrolserver_exporter.store.lease_rows import COMMON, STORE, holders
from patrolserver_exporter.store.tables import leases
from patrolserver_exporter.sync.rules import Rules
from patrolserver_exporter.web import operator_token

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from patrolserver_exporter.config.schema import Account, Config
    from patrolserver_exporter.config.secret import Secret
    from patrolserver_exporter.patrolserver.client import ApiCall
    from patrolserver_exporter.patrolserver.models import Server

_TIMEOUT: Final = 10.0
_CLOCK_WARNING, _CLOCK_TROUBLE = 5.0, 60.0
"""Seconds. The API's time has whole seconds, and a reply may be on its way for one or two."""
_SPACE_WARNING, _SPACE_TROUBLE = 200 * 2**20, 20 * 2**20
_DESCRIPTORS: Final = 1024
"""Below that many, a burst of clients can keep the service from opening its files."""
_BESIDE: Final = ("-wal", "-shm", ".lock", ".sum")
_POSTGRESQL: Final = 14
_A_SECOND_ONE: Final = "a second exporter on it ends with exit code 3, and touches nothing"
_ANOTHER_ONE: Final = "a second exporter on this database shares the work, and goes on if this one ends"
_OPEN_FILES: Final = re.compile(r"^Max open files\s+(\d+|unlimited)", re.MULTILINE)


class Grade(StrEnum):
    """How a finding is meant."""

    OK = "ok"
    WARNING = "warning"
    TROUBLE = "trouble"
    SKIPPED = "skipped"
    """It was not looked at; the text says why."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at. No text holds a secret."""

    check: str
    """What was looked at: ``account main``, ``store``, …"""
    grade: Grade
    found: str
    """What was found."""
    do: str = ""
    """What to do about it; empty where there is nothing to do."""


def check_up(
    config: Config, *, external_url: str, ca_file: str | None, environ: Mapping[str, str]
) -> Iterator[Finding]:
    """Look at everything, in the order in which trouble would spread. Calls the API once or twice an account."""
    config = _from_its_folder(config, environ)
    for account in config.accounts:
        yield from _account(config, account)
    yield from _store(config, environ)
    yield from _running(config, environ)
    for account in config.accounts:
        yield from _webhook(account, external_url, ca_file)


def _ok(check: str, found: str) -> Finding:
    return Finding(check, Grade.OK, found)


def _warning(check: str, found: str, do: str) -> Finding:
    return Finding(check, Grade.WARNING, found, do)


def _trouble(check: str, found: str, do: str = "") -> Finding:
    return Finding(check, Grade.TROUBLE, found, do)


# Accounts


def _account(config: Config, account: Account) -> Iterator[Finding]:
    check = f"account {account.name}"
    offsets: list[float] = []

    def observe(call: ApiCall) -> None:
        if call.clock_offset is not None:
            offsets.append(call.clock_offset)

    try:
        client = PatrolServerClient(
            account.name,
            account.api_url,
            lambda: (account.key.reveal(), account.secret.reveal()),
            timeout=config.poll.timeout,
            proxy_url=account.proxy_url.reveal() if account.proxy_url else None,
            ca_file=account.ca_file,
            pool_size=1,
            observer=observe,
        )
    except (ValueError, OSError) as error:
        yield _trouble(check, f"it cannot be called: {error}", "correct its api_url, proxy_url or ca_file")
        return
    answered = False
    try:
        yield from _calls(check, client, Rules.of(config, account))
        answered = True
    except Unreachable as error:
        yield _trouble(check, f"{_way(account)}: {error.what_happened}", error.advice)
    except PatrolServerError as error:
        yield _trouble(check, error.what_happened, error.advice)
    finally:
        client.close()
    if offsets:
        yield _clock(offsets[-1])
    elif answered:
        yield Finding("clock", Grade.SKIPPED, f"the API of {check} did not tell its time")


def _way(account: Account) -> str:
    """Where an account's calls go, without credentials."""
    api = _host_and_port(account.api_url)
    return f"{api} through the proxy {_host_and_port(account.proxy_url.reveal())}" if account.proxy_url else api


def _host_and_port(url: str) -> str:
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port or {'http': 80, 'https': 443}.get(parts.scheme, '?')}"


def _calls(check: str, client: PatrolServerClient, rules: Rules) -> Iterator[Finding]:
    listed = client.servers()
    watched = [server for server in listed.value if rules.watches(server.name)]
    counted = f"{len(listed.value)} servers are listed, {len(watched)} of them are watched"
    if not listed.complete:
        why = "; ".join(listed.partial_because)
        advice = "until it is whole no server is taken for gone, and the gate is unknown for globs"
        yield _trouble(check, f"{counted}, but the list is not whole: {why}", advice)
    elif not watched:
        advice = (
            "correct accounts[].servers" if listed.value else "add servers at PatrolServer; a gate over none is unknown"
        )
        yield _warning(check, counted, advice)
    else:
        yield _ok(check, counted)
    if watched:
        yield _poll(check, client, watched[0])


def _poll(check: str, client: PatrolServerClient, server: Server) -> Finding:
    polled = client.software(server.id)
    found = f"{server.name} was polled: {len(polled.value)} software"
    if not polled.complete:
        why = "; ".join(polled.partial_because)
        return _trouble(check, f"{found}, but not whole: {why}", "the gate is unknown for it")
    if not polled.value:
        return _warning(check, found, "the gate is unknown for it until a scan has found some; start one")
    return _ok(check, found)


def _clock(offset: float) -> Finding:
    found = f"this machine's clock is {abs(offset):.0f} s {'ahead of' if offset > 0 else 'behind'} the API's"
    if abs(offset) < _CLOCK_WARNING:
        return _ok("clock", "this machine's clock agrees with the API's")
    grade = Grade.TROUBLE if abs(offset) > _CLOCK_TROUBLE else Grade.WARNING
    return Finding("clock", grade, found, "set it by NTP: ages and the gate go by it")


# The store


def _from_its_folder(config: Config, environ: Mapping[str, str]) -> Config:
    """A relative ``store.url`` starts where the service does; here it would lead to no state, and be called fine."""
    url = sa.make_url(config.store.url)
    if url.get_backend_name() != "sqlite" or os.path.exists(url.database or "") or os.path.isabs(url.database or ""):  # noqa: PTH110, PTH117
        return config
    for folder in (*environ.get("STATE_DIRECTORY", "").split(":"), str(operator_token.INSTALLED_IN)):
        if folder and os.path.isdir(folder):  # noqa: PTH112  # It never raises.
            placed = url.set(database=str(Path(folder) / (url.database or "patrolserver.db")))
            return replace(config, store=replace(config.store, url=placed.render_as_string(hide_password=False)))
    return config


def _store(config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    file = database_file(config.store.url)
    if file is None:
        yield from _postgresql(config)
    else:
        yield _sqlite(config.store.url, file, environ.get("STATE_DIRECTORY", ""))


def _sqlite(url: str, file: Path, state_directory: str) -> Finding:
    folder = file.parent
    if (why := why_unusable(url, state_directory)) is not None:
        return _trouble("store", why)
    if not os.path.isdir(folder):  # noqa: PTH112  # It never raises.
        return _ok("store", f"{file} is not there yet; systemd makes its folder when the service starts first")
    if (closed := _closed(file)) is not None:
        return closed
    free = shutil.disk_usage(folder).free
    size = file.stat().st_size if file.exists() else 0
    found = f"{file} has {_mib(size)}, {_mib(free)} are free beside it"
    try:
        sound = look_over(url) if file.exists() else ""
    except (StoreError, OSError) as error:
        return _trouble("store", f"{found}, but no exporter starts on it: {error}")
    if free < _SPACE_WARNING:
        grade = Grade.TROUBLE if free < _SPACE_TROUBLE else Grade.WARNING
        return Finding("store", grade, found, "make room: on a full disk deliveries get a 503")
    found = f"{found}; {sound}; {_A_SECOND_ONE}" if size else f"{file} is not there yet, {_mib(free)} are free for it"
    return _ok("store", found)


def _closed(file: Path) -> Finding | None:
    """What keeps this user from writing the state, if anything does."""
    folder = file.parent
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        advice = "mount it for writing, or correct store.url"
        return _trouble("store", f"{folder} lies on a file system that can only be read", advice)
    for target in (folder, file, *(file.with_name(file.name + end) for end in _BESIDE)):
        needed = os.W_OK | os.X_OK if target == folder else os.R_OK | os.W_OK
        if os.path.lexists(target) and not os.access(target, needed):
            advice = "run doctor as the exporter's user, or let that user write it"
            return _trouble("store", f"{target} cannot be written by this user", advice)
    return None


def _postgresql(config: Config) -> Iterator[Finding]:
    url = config.store.url
    try:
        engine = create_reading_engine(url)
        try:
            with engine.connect() as connection:
                version = int(connection.exec_driver_sql("SHOW server_version_num").scalar_one()) // 10_000
                size = connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one()
                refused = _refused(connection)
                found = [] if refused else list(_holders(connection))
            if not refused:
                check_usable(engine, redacted(url))
        finally:
            engine.dispose()
    except (sa.exc.SQLAlchemyError, ImportError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        yield _trouble("store", f"{redacted(url)} does not answer: {reason}", "correct store.url, or start it")
        return
    except StoreError as error:
        yield _trouble("store", f"no exporter starts on {redacted(url)}: {error}")
        return
    shown = f"{redacted(url)} answers: PostgreSQL {version}, {_mib(size)}"
    if version < _POSTGRESQL:
        yield _trouble("store", f"{redacted(url)} is PostgreSQL {version}", "PostgreSQL 14 or newer is needed")
    elif refused:
        advice = "make the exporter's user the owner of the database and of its tables"
        yield _trouble("store", f"{shown}, but its user may not {' nor '.join(refused)}", advice)
    else:
        yield _ok("store", f"{shown}; how much room its disk has cannot be seen from here")
    yield from found


def _refused(connection: sa.Connection) -> list[str]:
    """What an exporter has to do on the database, and its user may not."""
    tables = [name for name in sa.inspect(connection).get_table_names() if name in leases.metadata.tables]
    if not tables:
        may = connection.exec_driver_sql("SELECT has_schema_privilege(current_schema(), 'CREATE')").scalar()
        return [] if may else ["create tables in it"]
    asked = sa.text("SELECT has_table_privilege(format('%I', CAST(:name AS text)), :right)")
    return [
        f"{right} {name}"
        for name in tables
        for right in ("SELECT", "INSERT", "UPDATE", "DELETE")
        if not connection.execute(asked, {"name": name, "right": right}).scalar()
    ]


def _holders(connection: sa.Connection) -> Iterator[Finding]:
    """Which exporters work on the database, as their leases say."""
    if not sa.inspect(connection).has_table(leases.name):
        yield _ok("replicas", "no exporter has used this database yet")
        return
    held = False
    for account, holder in holders(connection).items():
        what = {STORE: "the store", COMMON: "what belongs to no account"}.get(account, f"account {account}")
        if holder.owner is None:
            continue
        held = True
        found = f"{what} is held by {holder.described}"
        if holder.until > holder.now:
            yield Finding("replicas", Grade.OK, found, _A_SECOND_ONE if account == STORE else _ANOTHER_ONE)
        else:
            ago = f"but the lease ran out {holder.now - holder.until:.0f} s ago"
            advice = "it was killed, or is cut off from the database: start it again, unless another one is to go on"
            yield _warning("replicas", f"{found}, {ago}", advice)
    if not held:
        yield _ok("replicas", "no exporter works on this database now")


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


# The exporter that runs


def _running(config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    file = database_file(config.store.url)
    path = operator_token.folder_for(file, environ) / operator_token.FILE_NAME
    installed = operator_token.INSTALLED_IN / operator_token.FILE_NAME
    if file is None and os.path.lexists(installed) and not os.path.lexists(path):
        path = installed
    try:
        url, token = path.read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:
        yield Finding("exporter", Grade.SKIPPED, f"none has been started here: there is no {path}")
        return
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not as an exporter writes it"
        advice = "run doctor as the exporter's user or root"
        yield _warning("exporter", f"{path} cannot be read: {reason}", advice)
        return
    try:
        # Its own certificate may be for another name than 127.0.0.1, and the token is only sent to this machine.
        answer = _ask("GET", f"{url}/-/ready", verify=False)
        status = _ask("GET", f"{url}/api/v1/status", verify=False, headers={"Authorization": f"Bearer {token}"})
    except requests.exceptions.SSLError:
        found = f"{url} answers, but takes nobody without a certificate, so that no more can be told"
        yield Finding("exporter", Grade.SKIPPED, found, "ask its /-/ready with a certificate of a client")
        return
    except requests.Timeout:
        advice = "it hangs, or has too much to do: read its log, and restart it"
        yield _trouble("exporter", f"{url} did not answer within {_TIMEOUT:.0f} s", advice)
        return
    except requests.RequestException:
        yield _warning("exporter", f"nothing answers at {url}", "start it, or read its log if it should run")
        return
    troubles = _troubles(status) or answer.text.splitlines()[1:]
    grade = Grade.OK if answer.ok else Grade.TROUBLE
    said = answer.text.splitlines()[0] if answer.text else f"status {answer.status_code}"
    yield Finding("exporter", grade, f"{url}: {said}", "" if answer.ok else "see the lines below and its log")
    for trouble in troubles:
        yield _trouble("exporter", trouble)
    yield from _limits(_process(status))


def _troubles(status: requests.Response) -> list[str]:
    try:
        return [str(trouble) for trouble in status.json()["troubles"]] if status.ok else []
    except (ValueError, KeyError, TypeError):
        return []


def _process(status: requests.Response) -> int | None:
    """The id of the process that answered; ``None`` where it runs on another machine, or does not tell."""
    try:
        (this,) = [one for one in status.json()["replicas"] if one["this"]]
        return int(this["pid"]) if this["host"] == socket.gethostname() else None
    except (ValueError, KeyError, TypeError):
        return None


def _limits(process: int | None) -> Iterator[Finding]:
    """What its unit lets it have."""
    try:
        text = Path(f"/proc/{process}/limits").read_text()
    except OSError:
        yield Finding("limits", Grade.SKIPPED, "which process answers there cannot be told from here")
        return
    found = _OPEN_FILES.search(text)
    if found and found[1] != "unlimited" and int(found[1]) < _DESCRIPTORS:
        advice = f"set LimitNOFILE={2 * _DESCRIPTORS} in its unit"
        yield _warning("limits", f"process {process} may open {found[1]} files", advice)
    elif found:
        yield _ok("limits", f"process {process} may open {found[1]} files")


# The webhook's URL


def _webhook(account: Account, external_url: str, ca_file: str | None) -> Iterator[Finding]:
    check = f"webhook {account.name}"
    if not account.webhook_tokens:
        yield Finding(check, Grade.SKIPPED, "it is off: the account has no webhook_tokens")
    elif not external_url:
        advice = "give --web.external-url=URL, the one that PatrolServer calls, without /webhook"
        yield Finding(check, Grade.SKIPPED, "its URL from outside is not known", advice)
    else:
        yield from (_deliver(check, external_url, token, ca_file) for token in account.webhook_tokens)


def _deliver(check: str, external_url: str, token: Secret, ca_file: str | None) -> Finding:
    nonce = secrets.token_hex(16)
    url, shown = f"{external_url.rstrip('/')}/webhook/{token.reveal()}", f"{external_url.rstrip('/')}/webhook/…"
    try:
        answer = _ask("POST", url, json={CHECKUP: nonce}, verify=ca_file or True)
    except requests.exceptions.SSLError as error:
        return _trouble(check, *_of_tls(shown, repr(error)))
    except requests.Timeout:
        return _trouble(check, f"{shown} did not answer within {_TIMEOUT:.0f} s", "check firewall and proxy")
    except (requests.RequestException, urllib3.exceptions.LocationParseError) as error:
        nameless = "NameResolution" in repr(error) or isinstance(error, urllib3.exceptions.LocationParseError)
        cause = "its host has no address" if nameless else "nothing answers there"
        advice = "check the URL, DNS, firewall and proxy"
        return _trouble(check, f"{shown} leads nowhere: {cause}", advice)
    if answer.status_code == 200 and _member(answer, CHECKUP) == nonce:
        return _ok(check, f"{shown} leads to an exporter that knows the token")
    return _trouble(check, f"{shown} answered with status {answer.status_code}", _ADVICE.get(_kind(answer), ""))


def _of_tls(shown: str, error: str) -> tuple[str, str]:
    """What is wrong with the TLS of an address, and what to do; OpenSSL tells it in words alone."""
    if "CERTIFICATE_VERIFY_FAILED" in error:
        advice = "PatrolServer would refuse it, too: check name, chain and dates (--ca-file: your own authority)"
        return f"{shown} shows a certificate that is not trusted", advice
    if "CERTIFICATE_REQUIRED" in error or "BAD_CERTIFICATE" in error:
        advice = "PatrolServer has none: serve the webhook through a proxy, or without client_auth_type"
        return f"{shown} asks for a certificate of the client", advice
    if "WRONG_VERSION_NUMBER" in error or "RECORD_LAYER" in error:
        return f"{shown} does not speak TLS", "turn TLS on there, or write http://"
    return f"TLS with {shown} fails", "check TLS versions and ciphers of what answers there"


_ADVICE: Final = {
    401: "the exporter there does not know this token: reload it, or correct the URL",
    403: "webhook.allowed_networks does not hold this machine; from here no more can be told",
    404: "the exporter serves the webhook under another path: check the proxy's prefix and --web.route-prefix",
    413: "the proxy in front allows too small a body",
    429: "too many wrong tokens were sent; try again in a minute",
    503: "the exporter cannot take deliveries in: see its log",
    "tls": "TLS is spoken there: write https://",
    "redirect": "PatrolServer does not follow redirects: enter the URL that it leads to",
    "other": "something else answers there: check the proxy, and that no login page stands in front of /webhook",
}


def _kind(answer: requests.Response) -> int | str:
    if 300 <= answer.status_code < 400:
        return "redirect"
    if answer.status_code == 400 and "HTTPS" in answer.text[:1000]:
        # As Go, nginx, HAProxy and the exporter itself say it.
        return "tls"
    ours = answer.headers.get("content-type", "").startswith("application/problem+json")
    return answer.status_code if ours and answer.status_code in _ADVICE else "other"


def _member(answer: requests.Response, name: str) -> Any:
    try:
        data = answer.json()
    except ValueError:
        return None
    return data.get(name) if isinstance(data, dict) else None


def _ask(method: str, url: str, **options: Any) -> requests.Response:
    """One request, with neither proxy nor password of the environment, and without following a redirect."""
    if options.get("verify") is False and urlsplit(url).hostname not in {"127.0.0.1", "::1", "localhost"}:
        options["verify"] = True
    with requests.Session() as session, warnings.catch_warnings():
        warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
        session.trust_env = False
        return session.request(method, url, timeout=_TIMEOUT, allow_redirects=False, **options)
