"""The JSON API of a running exporter, for the commands that ask it. Python's own library is all it needs.

ExporterError          the exporter did not give an answer that can be used; the text says why and what to do
└── Refused            it answered with an error of its own; ``status`` is the HTTP status
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import select
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from patrolserver_exporter import __version__
from patrolserver_exporter.commands import documents, flags
from patrolserver_exporter.config.duration import format_duration, parse_duration
from patrolserver_exporter.config.problem import ConfigError
from patrolserver_exporter.config.secret import Secret
from patrolserver_exporter.web import operator_token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from patrolserver_exporter.commands.flags import Parser

URL_VARIABLE = "PATROLSERVER_EXPORTER_URL"
TOKEN_VARIABLE = "PATROLSERVER_EXPORTER_TOKEN"  # noqa: S105  # its name
DEFAULT_URL = "http://127.0.0.1:10058"
MAX_REPLY_BYTES = 256 * 1024 * 1024
PAGE = 1000
_SUCCESSFUL = {200, 202}
"""The others of 2xx are no exporter's: 203 and 206 tell of a proxy that changed the answer."""
_CHUNK_BYTES = 64 * 1024
_GRACE = 1.0
"""Seconds beyond the timeout, in which a late answer still gets its own reason."""
_SHORTEST = 0.05
"""Seconds."""
_WRONG_NAME = {62, 64}
"""OpenSSL's codes for a certificate of another host or address."""
_IN_PATHS = "/%:@!$&'()*+,;=~"
_SECONDS = re.compile(r"[0-9]{1,6}", re.ASCII)
_PROXIED = "a proxy or a login page may stand in front of it; give the exporter's own address in --exporter-url"


class ExporterError(Exception):
    """The exporter did not give an answer that can be used."""


class Refused(ExporterError):
    """The exporter answered with an error.

    ``at`` is the member of the body that is wrong, ``unknown`` are the servers that it does not have: where it says so.
    """

    def __init__(self, status: int, message: str, at: str | None = None, unknown: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.at = at
        self.unknown = unknown


def add_flags(parser: Parser) -> None:
    """Add the flags that say which exporter to ask, and how."""
    group = parser.add_argument_group("the exporter")
    group.add_argument(
        "--exporter-url",
        metavar="URL",
        type=flags.text,
        default=os.environ.get(URL_VARIABLE) or DEFAULT_URL,
        help=f"of the running exporter (default: {URL_VARIABLE} of the environment, or {DEFAULT_URL})",
    )
    group.add_argument(
        "--token-file",
        metavar="FILE",
        help=f"with a token of the exporter's api.tokens (default: {TOKEN_VARIABLE}_FILE or {TOKEN_VARIABLE} of the "
        f"environment; for an exporter on this machine, {operator_token.FILE_NAME} in STATE_DIRECTORY, "
        f"{operator_token.INSTALLED_IN} or here)",
    )
    group.add_argument("--ca-file", metavar="FILE", help="certificates to trust instead of the system's")
    group.add_argument("--timeout", metavar="DURATION", default="30s", help="of each request (default: 30s)")


def from_flags(parser: Parser, values: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> ExporterClient:
    """The client that the flags ask for; ends the program with 2 when they are wrong."""
    url = str(values["exporter-url"])
    try:
        parts = urlsplit(url)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        sound = sound and parts.netloc.isprintable() and " " not in parts.netloc
    except ValueError:
        parts, sound = urlsplit(""), False
    if not sound or parts.query or parts.fragment:
        parser.error(f"--exporter-url (or {URL_VARIABLE}) has to be like {DEFAULT_URL}")
    if "@" in parts.netloc:
        parser.error("--exporter-url holds a name or password, which everybody on this machine could read; use a token")
    ca_file = values["ca-file"]
    if ca_file is not None and not os.path.isfile(ca_file):  # noqa: PTH113  # It never raises.
        parser.refuse(f"--ca-file: there is no file {ca_file}")
    try:
        token = _token(values["token-file"], environ)
    except ConfigError as error:
        parser.refuse(f"{_named_by(values['token-file'], environ)}: {error.errors[0].message}")
    timeout = duration(parser, "--timeout", str(values["timeout"]))
    url, hint = url.rstrip("/"), ""
    if token is None:
        found = operator_token.find(url, environ)
        token, hint = found.token, found.hint
    try:
        return ExporterClient(url, token=token, token_hint=hint, ca_file=ca_file, timeout=timeout)
    except (OSError, ValueError):
        parser.refuse(f"--ca-file: {ca_file} cannot be read, or holds no certificates in PEM")


def duration(parser: Parser, flag: str, text: str) -> float:
    """Seconds, more than none; ends the program with 2 when the flag is wrong."""
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        parser.error(f"{flag} {error}")
    if not seconds:
        parser.error(f"{flag} has to be more than 0")
    return seconds


def _named_by(file: str | None, environ: Mapping[str, str]) -> str:
    """What says where the token is."""
    if file:
        return "--token-file"
    return f"{TOKEN_VARIABLE}_FILE" if environ.get(f"{TOKEN_VARIABLE}_FILE") else TOKEN_VARIABLE


def _token(file: str | None, environ: Mapping[str, str]) -> Secret | None:
    path = file or environ.get(f"{TOKEN_VARIABLE}_FILE")
    if path:
        return Secret.from_file(Path(path), reader="your own user")
    return Secret.from_env(TOKEN_VARIABLE, environ) if environ.get(TOKEN_VARIABLE) else None


@dataclass(frozen=True)
class _Request:
    method: str
    target: str
    data: bytes | None
    headers: dict[str, str | bytes]


@dataclass(frozen=True)
class _Answer:
    status: int
    media_type: str
    body: bytes
    retry_after: str

    @property
    def wait(self) -> float | None:
        """Seconds after which the same may be asked again; ``None`` where that would not help.

        Where the exporter's store is in trouble, nobody knows for how long: that is told at once.
        """
        if self.status not in {429, 503} or not _SECONDS.fullmatch(self.retry_after):
            return None
        return None if b'"trouble":"store"' in self.body else max(float(self.retry_after), _SHORTEST)


class ExporterClient:
    """Asks one exporter. Redirects are not followed, and neither proxies nor passwords of the environment are used.

    ``token_hint`` says why there is no token, for the message of a refusal.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Secret | None = None,
        token_hint: str = "",
        ca_file: str | None = None,
        timeout: float,
    ) -> None:
        self.url = url
        self._token = token
        self._token_hint = token_hint
        self._timeout = timeout
        self._kept: http.client.HTTPConnection | None = None
        """A connection that nobody uses, for the next request."""
        self._parts = urlsplit(url)
        self._tls = _tls(ca_file) if self._parts.scheme == "https" else None

    def __del__(self) -> None:
        if self._kept is not None:
            self._kept.close()

    def get(self, path: str, query: Sequence[tuple[str, str]] = ()) -> Any:
        """What GET answers, decoded."""
        return self._call("GET", path, query=query)

    def post(self, path: str, body: Any = None, query: Sequence[tuple[str, str]] = ()) -> Any:
        """What POST answers, decoded."""
        return self._call("POST", path, query=query, body=body)

    def delete(self, path: str) -> None:
        """DELETE something."""
        self._call("DELETE", path)

    def items(self, path: str, query: Sequence[tuple[str, str]] = ()) -> Iterator[dict[str, Any]]:
        """All items of a list, page by page."""
        cursor: str | None = None
        while True:
            pairs = [*query, ("limit", str(PAGE)), *([("cursor", cursor)] if cursor else [])]
            page = self.get(path, pairs)
            if not isinstance(page, dict) or not isinstance(page.get("items"), list):
                raise ExporterError(f"{self.url} answered with something else than a list; {_PROXIED}.")
            yield from page["items"]
            before, cursor = cursor, page.get("next_cursor")
            if not cursor:
                return
            if cursor == before:
                raise ExporterError(f"The list of {self.url} does not end.")

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: Any = None,
    ) -> Any:
        answer = self._answer(lambda end: self._send(method, path, query, body, end))
        if 300 <= answer.status < 400:
            raise ExporterError(f"{self.url} answered with a redirect, which is not followed; {_PROXIED}.")
        if answer.media_type == "application/problem+json":
            raise self._refusal(answer)
        if answer.status == 204:
            return None
        if answer.status not in _SUCCESSFUL or answer.media_type != "application/json":
            raise ExporterError(
                f"{self.url} answered with status {answer.status} and {answer.media_type or 'no content type'}, as no "
                f"exporter does; {_PROXIED}."
            )
        try:
            return documents.decode(answer.body)
        except ValueError:
            raise ExporterError(f"{self.url} answered with broken JSON.") from None

    def _answer(self, send: Callable[[float], _Answer]) -> _Answer:
        """Send; again when the exporter says that it is too busy, as long as the timeout lasts."""
        end = time.monotonic() + self._timeout
        while True:
            answer = self._within_timeout(lambda: send(end), end)
            wait = answer.wait
            if wait is None or time.monotonic() + wait >= end:
                return answer
            time.sleep(wait)

    def _within_timeout(self, send: Callable[[], _Answer], end: float) -> _Answer:
        """Send, with a limit for the whole answer: a socket limits only the wait for each byte."""
        outcome: SimpleQueue[_Answer | Exception] = SimpleQueue()

        def work() -> None:
            try:
                outcome.put(send())
            except Exception as error:  # noqa: BLE001  # Raised again where the answer is waited for.
                outcome.put(error)

        threading.Thread(target=work, name="exporter-client", daemon=True).start()
        try:
            answer = outcome.get(timeout=max(end - time.monotonic(), 0.0) + _GRACE)
        except Empty:
            raise ExporterError(self._too_late()) from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _send(self, method: str, path: str, query: Sequence[tuple[str, str]], body: Any, end: float) -> _Answer:
        headers: dict[str, str | bytes] = {
            "accept": "application/json",
            "user-agent": f"patrolserver-exporter/{__version__}",
        }
        if self._token is not None:
            headers["authorization"] = f"Bearer {self._token.reveal()}".encode()
        data = None
        if body is not None:
            headers["content-type"] = "application/json"
            data = json.dumps(body, allow_nan=False).encode()
        target = f"{quote(self._parts.path, _IN_PATHS)}/api/v1{path}" + (f"?{urlencode(query)}" if query else "")
        request = _Request(method, target, data, headers)
        # What a kept connection lost may have arrived, and must not be done twice.
        kept = None if method == "DELETE" else self._still_open(end)
        try:
            if kept is not None:
                # The exporter may have closed it at this moment, which tells nothing.
                with contextlib.suppress(ConnectionError):
                    return self._exchange(kept, request, end)
            return self._exchange(self._connected(end), request, end)
        except (OSError, http.client.HTTPException) as error:
            raise ExporterError(self._broken_off(error)) from None

    def _exchange(self, connection: http.client.HTTPConnection, request: _Request, end: float) -> _Answer:
        """Ask on this connection, and keep it if it stays open."""
        try:
            # An exporter that does not want so much hangs up, but says why before.
            with contextlib.suppress(BrokenPipeError):
                connection.request(request.method, request.target, request.data, request.headers)
            with connection.getresponse() as response:
                media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
                retry_after = response.headers.get("retry-after", "")
                answer = _Answer(response.status, media_type, self._read(response, end), retry_after)
        except BaseException:
            connection.close()
            raise
        if response.will_close:
            connection.close()
        else:
            self._kept = connection
        return answer

    def _still_open(self, end: float) -> http.client.HTTPConnection | None:
        """The connection that was kept, unless the exporter has closed it."""
        kept, self._kept = self._kept, None
        if kept is None or kept.sock is None:
            return None
        if _has_something_to_say(kept.sock):
            kept.close()
            return None
        kept.sock.settimeout(max(end - time.monotonic(), _SHORTEST))
        return kept

    def _connected(self, end: float) -> http.client.HTTPConnection:
        """Return a new connection. Raises `ExporterError`."""
        left = max(end - time.monotonic(), _SHORTEST)
        host, port = self._parts.hostname or "", self._parts.port
        connection = (
            http.client.HTTPConnection(host, port, timeout=left)
            if self._tls is None
            else http.client.HTTPSConnection(host, port, timeout=left, context=self._tls)
        )
        try:
            connection.connect()
        except (OSError, ValueError) as error:
            connection.close()
            raise ExporterError(self._unreachable(error)) from None
        return connection

    def _read(self, response: http.client.HTTPResponse, end: float) -> bytes:
        body = bytearray()
        # As it comes: read would wait for the whole, however slowly that goes.
        while chunk := response.read1(_CHUNK_BYTES):
            body += chunk
            if len(body) > MAX_REPLY_BYTES:
                raise ExporterError(f"The answer of {self.url} is too large.")
            if time.monotonic() > end:
                raise ExporterError(f"The answer of {self.url} took over {format_duration(self._timeout)} (--timeout).")
        if response.length:
            raise http.client.IncompleteRead(bytes(body), response.length)
        return bytes(body)

    def _unreachable(self, error: Exception) -> str:
        """Why there is no connection."""
        if isinstance(error, ssl.SSLError):
            return self._no_tls(error)
        if isinstance(error, socket.timeout):
            return self._too_late()
        if isinstance(error, (socket.gaierror, ValueError)):
            return f"The host {self._parts.hostname} of the exporter cannot be resolved; is --exporter-url right?"
        if isinstance(error, ConnectionResetError):
            return self._hung_up()
        return f"Nothing answers at {self.url}; is the exporter running, and --exporter-url right?"

    def _broken_off(self, error: Exception) -> str:
        """Why there is no answer on a connection."""
        if isinstance(error, socket.timeout):
            return self._too_late()
        if isinstance(error, http.client.IncompleteRead):
            return f"{self.url} hung up in the middle of its answer."
        return self._no_tls(error) if isinstance(error, ssl.SSLError) else self._hung_up()

    def _hung_up(self) -> str:
        return f"{self.url} hung up without an answer in HTTP; is it an exporter, and does it want https://?"

    def _no_tls(self, error: ssl.SSLError) -> str:
        if not isinstance(error, ssl.SSLCertVerificationError):
            return f"{self.url} does not speak TLS as it should; is it http:// there?"
        if error.verify_code in _WRONG_NAME:
            return f"The certificate of {self.url} is for another name; ask by the name that it has."
        return f"The certificate of {self.url} is not trusted; give its authority in --ca-file."

    def _too_late(self) -> str:
        return f"{self.url} did not answer within {format_duration(self._timeout)} (--timeout)."

    def _refusal(self, answer: _Answer) -> Refused:
        try:
            problem = documents.decode(answer.body)
        except ValueError:
            problem = None
        if not isinstance(problem, dict):
            problem = {}
        detail = str(problem.get("detail") or problem.get("title") or "it did not say why")
        hint = ""
        if answer.status in {401, 403}:
            hint = f" (the token is read from --token-file, {TOKEN_VARIABLE}_FILE or {TOKEN_VARIABLE}"
            hint += f"; {self._token_hint})" if self._token_hint else ")"
        at, unknown = problem.get("at"), problem.get("unknown")
        message = f"The exporter refused with status {answer.status}: {detail}{hint}"
        named = tuple(map(str, unknown)) if isinstance(unknown, list) else ()
        return Refused(answer.status, message, at if isinstance(at, str) else None, named)


def _tls(ca_file: str | None) -> ssl.SSLContext:
    """Raises ``OSError`` when the file holds no certificates."""
    context = ssl.create_default_context(cafile=ca_file)
    # Python 3.13 would refuse what openssl makes of "req -x509", and others take it.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _has_something_to_say(kept: socket.socket) -> bool:
    """Whether more came after the last answer: its end, as a rule."""
    with contextlib.suppress(OSError, ValueError):
        return bool(select.select([kept], [], [], 0)[0])
    return True
