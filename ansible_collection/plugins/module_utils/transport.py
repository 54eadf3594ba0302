# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP for both clients: proxies, certificates, time-outs, retries of reads, and no URL in any text that leaves."""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import json
import os
import queue
import random
import re
import socket
import ssl
import threading
import time
import zlib
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode

from ansible.module_utils.urls import ConnectionError as UrlsConnectionError
from ansible.module_utils.urls import SSLValidationError, open_url

from ansible_collections.patrolserver.monitoring.plugins.module_utils.connection import (
    checked,
    endpoint,
    proxy_of_environment,
)
from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import (
    ConnectionFailed,
    InvalidInput,
    Refused,
    Unreadable,
)
from ansible_collections.patrolserver.monitoring.plugins.module_utils.redaction import (
    Redactor,
    basic_credentials,
    secrets_of,
)

AGENT = "patrolserver.monitoring"
MAX_BODY = 64 * 1024 * 1024
RETRIED = (429, 502, 503, 504)
BACKOFF_BASE = 0.5
BACKOFF_CAP = 30.0
LONGEST_DETAIL = 1000
# OpenSSL's codes for a certificate of another host or address.
WRONG_NAME = (62, 64)
PROXY_VARIABLES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY")


class Reply:
    """A successful answer: ``status``, ``headers`` with names in lower case, and the decoded ``body``."""

    def __init__(self, status: int, headers: dict, body: object) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class Transport:
    """One HTTP endpoint with its credentials.

    ``params`` are the options of the connection; ``url_option`` is the one with the URL; ``name`` is what messages call
    the other side; ``hidden_query`` maps query parameters to the options of credentials that travel there.

    :raises InvalidInput: for options that cannot be meant.
    """

    def __init__(self, name: str, url_option: str, params: dict, hidden_query: dict | None = None) -> None:
        self.name = name
        self.redact = Redactor(secrets_of(params))
        self._params = checked(params, url_option)
        self._hidden_query = {key: self._params[option] for key, option in (hidden_query or {}).items()}
        self._url_option = url_option
        self._base = self._params[url_option]
        self._sleep = time.sleep

    def get(self, path: str, query: list | None = None) -> Reply:
        """Read, with retries."""
        return self._send("GET", path, query or [], None, None, read=True)

    def post_json(self, path: str, body: dict, read: bool = False, query: list | None = None) -> Reply:
        """Send JSON; ``read`` says that it changes nothing over there, so that it may be tried again."""
        data = json.dumps(body).encode("utf-8")
        return self._send("POST", path, query or [], data, "application/json", read=read)

    def post_form(self, path: str, fields: list, query: list | None = None) -> Reply:
        """Send a form, once."""
        data = urlencode(fields).encode("utf-8")
        return self._send("POST", path, query or [], data, "application/x-www-form-urlencoded", read=False)

    def _send(self, method: str, path: str, query: list, data: bytes | None, mime: str | None, read: bool) -> Reply:
        attempts = 1 + (self._params["retries"] if read else 0)
        deadline = time.monotonic() + self._params["timeout"]
        for attempt in range(attempts):
            last = attempt + 1 == attempts
            try:
                return self._within(deadline, method, path, query, data, mime)
            except ConnectionFailed:
                pause = backoff(attempt, None)
                if last or time.monotonic() + pause >= deadline:
                    raise
            except Refused as error:
                pause = backoff(attempt, error.problem.get("retry_after"))
                if last or error.status not in RETRIED or time.monotonic() + pause >= deadline:
                    raise
            self._sleep(pause)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _within(self, deadline: float, method: str, path: str, *rest: object) -> Reply:
        """Return the reply of one attempt, all of it, before the deadline.

        A socket's own time-out begins anew with each byte, and looking up a name has none. So the attempt has a thread, which is
        left alone when it takes too long.
        """
        outcome = queue.SimpleQueue()

        def attempt() -> None:
            try:
                outcome.put((self._once(deadline, method, path, *rest), None))
            except BaseException as error:
                outcome.put((None, error))

        with explicit_proxy(self._params.get("proxy_url")):
            threading.Thread(target=attempt, daemon=True).start()
            try:
                reply, error = outcome.get(timeout=max(deadline - time.monotonic(), 0.001))
            except queue.Empty:
                told = "no whole answer within {0:g} seconds".format(self._params["timeout"])
                raise ConnectionFailed(self._unanswered(method, path, told, socket.timeout())) from None
        if error is not None:
            raise error
        return reply

    def _unanswered(self, method: str, path: str, why: str, error: BaseException) -> str:
        where = endpoint(self._base)
        proxy = self._params.get("proxy_url")
        if not proxy and self._params.get("use_proxy", True):
            proxy = proxy_of_environment(self._base)
        if proxy:
            where += " through the proxy " + endpoint(proxy)
        told = "{0}: {1} {2}: no answer: {3}: {4}; {5}".format(
            self.name, method, path, where, why.rstrip("."), advice(error, self._url_option, through_proxy=bool(proxy))
        )
        return self.redact(told)

    def _once(self, deadline: float, method: str, path: str, query: list, data: bytes | None, mime: str | None) -> Reply:
        pairs = list(query) + list(self._hidden_query.items())
        target = self._base + path + ("?" + urlencode(pairs) if pairs else "")
        what = "{0}: {1} {2}".format(self.name, method, path)
        try:
            answer = open_url(
                target,
                data=data,
                method=method,
                headers=self._headers(mime),
                http_agent=AGENT,
                timeout=max(deadline - time.monotonic(), 0.001),
                validate_certs=self._params["validate_certs"],
                ca_path=self._params.get("ca_file"),
                client_cert=self._params.get("client_cert"),
                client_key=self._params.get("client_key"),
                follow_redirects="none",
                use_netrc=False,
                use_proxy=self._params.get("use_proxy", True),
            )
            raw = answer.read(MAX_BODY + 1)
        except HTTPError as error:
            raise self._refusal(what, error) from None
        except (URLError, UrlsConnectionError, SSLValidationError, ssl.SSLError, socket.timeout, OSError) as error:
            told = self._unanswered(method, path, one_line(_reason(error)), error)
            raise ConnectionFailed(told, sent=not _is_unconnected(error)) from None
        except (http.client.HTTPException, EOFError, zlib.error) as error:
            raise ConnectionFailed(
                self._unanswered(method, path, "a broken answer, {0}".format(type(error).__name__), error)
            ) from None
        except ValueError as error:
            # Its text may hold a header, or the URL with the credentials in it.
            told = "{0}: this cannot be sent; check the URL, the proxy and the credentials ({1})"
            raise InvalidInput(told.format(what, type(error).__name__)) from None
        headers = {name.lower(): value for name, value in answer.headers.items()}
        told = headers.get("content-length", "")
        if told.isdigit() and "content-encoding" not in headers and len(raw) < min(int(told), MAX_BODY):
            raise ConnectionFailed(self._unanswered(method, path, "the answer was cut off", OSError()))
        return Reply(answer.status, headers, self._decode(what, raw))

    def _headers(self, mime: str | None) -> dict:
        headers = {"Accept": "application/json"}
        if mime:
            headers["Content-Type"] = mime
        if self._params.get("token"):
            headers["Authorization"] = "Bearer " + self._params["token"]
        elif self._params.get("username"):
            headers["Authorization"] = basic_credentials(self._params["username"], self._params.get("password") or "")
        return headers

    def _decode(self, what: str, raw: bytes) -> object:
        if len(raw) > MAX_BODY:
            raise Unreadable("{0}: the answer is larger than {1} bytes".format(what, MAX_BODY))
        if not raw.strip():
            return None
        try:
            return json.loads(raw.decode("utf-8"), object_pairs_hook=_members, parse_constant=_no_number)
        except ValueError:
            raise Unreadable("{0}: the answer is no JSON".format(what)) from None
        except Unreadable as error:
            raise Unreadable("{0}: {1}".format(what, error)) from None

    def _refusal(self, what: str, error: HTTPError) -> Refused:
        if 300 <= error.code < 400:
            return Refused("{0}: it redirects elsewhere, which is not followed".format(what), error.code)
        problem = _problem(error)
        text = "{0}: HTTP {1}".format(what, error.code)
        detail = one_line(self.redact(_detail(problem)))
        if not detail:
            # It has not said why, as the other side always does.
            where = "the proxy" if error.code == 407 else self._url_option
            detail = "whatever answers does not say why; check {0}".format(where)
        return Refused("{0}: {1}".format(self.redact(text), detail), error.code, problem)


def backoff(attempt: int, retry_after: float | None) -> float:
    """Return the seconds to wait before the next attempt: full jitter, at least what was asked for, never over the cap."""
    jitter = random.uniform(0, min(BACKOFF_CAP, BACKOFF_BASE * 2**attempt))
    return min(BACKOFF_CAP, max(jitter, retry_after or 0.0))


def retry_after_seconds(value: str | None) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for; nothing if it is absent or makes no sense."""
    if not value:
        return None
    if value.strip().isdigit():
        return min(float(value), BACKOFF_CAP)
    try:
        then = email.utils.parsedate_to_datetime(value)
    except (TypeError, ValueError, IndexError):
        return None
    return min(max(then.timestamp() - time.time(), 0.0), BACKOFF_CAP)


@contextlib.contextmanager
def explicit_proxy(proxy_url: str | None):
    """Send what happens inside through the given proxy; without one the environment's proxies hold.

    open_url takes proxies from the environment only. Modules and plugins run in processes of one thread.
    """
    if not proxy_url:
        yield
        return
    before = {name: os.environ.get(name) for name in PROXY_VARIABLES}
    try:
        for name in PROXY_VARIABLES:
            os.environ.pop(name, None)
        os.environ["http_proxy"] = os.environ["https_proxy"] = proxy_url
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def advice(error: BaseException, url_option: str, through_proxy: bool) -> str:
    """Return what to do about an answer that did not come."""
    cause = getattr(error, "reason", None)
    cause = cause if isinstance(cause, BaseException) else error
    options = url_option + (" and proxy_url" if through_proxy else "")
    if isinstance(cause, (ssl.SSLCertVerificationError, SSLValidationError)):
        if getattr(cause, "verify_code", None) in WRONG_NAME:
            return "give in {0} the name that its certificate is for".format(url_option)
        return "give the authority of its certificate in ca_file"
    if isinstance(cause, ssl.SSLError):
        return "check whether it takes http:// only, and client_cert"
    if isinstance(cause, socket.timeout):
        return "see whether it is overloaded or a firewall is between, or raise timeout"
    if isinstance(cause, socket.gaierror):
        return "check the host in {0}, and this machine's name service".format(options)
    if isinstance(cause, (ConnectionResetError, http.client.HTTPException)):
        return "check {0}, and whether it wants https://".format(options)
    if str(cause).startswith("Tunnel connection failed"):
        return "check the proxy, its credentials, and what it lets through"
    return "check {0}, that it runs there, and that it can be reached from where the task runs".format(options)


def _is_unconnected(error: BaseException) -> bool:
    cause = getattr(error, "reason", None)
    cause = cause if isinstance(cause, BaseException) else error
    never = (ConnectionRefusedError, socket.gaierror, ssl.SSLCertVerificationError, SSLValidationError)
    return isinstance(cause, never) or str(cause).startswith("Tunnel connection failed")


def _reason(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    return str(reason or error) or type(error).__name__


def _no_number(name: str) -> None:
    """Refuse NaN and infinity, which are no JSON and less than no limit."""
    raise ValueError(name)


def _members(pairs: list) -> dict:
    """Return an object; of two values for one member nobody knows which one is meant.

    :raises Unreadable: which names the member.
    """
    members = dict(pairs)
    if len(members) < len(pairs):
        for name, value in pairs:
            if json.dumps(value) != json.dumps(members[name]):
                raise Unreadable("the answer has {0} twice, with two values".format(one_line(repr(name))))
    return members


def _problem(error: HTTPError) -> dict:
    try:
        decoded = json.loads(error.read(1024 * 1024).decode("utf-8"))
    except (ValueError, OSError, http.client.HTTPException, AttributeError):
        decoded = {}
    problem = decoded if isinstance(decoded, dict) else {}
    problem["retry_after"] = retry_after_seconds(error.headers.get("Retry-After") if error.headers else None)
    return problem


def _detail(problem: dict) -> str:
    """Return the sentence of a problem document, or of an error as PatrolServer writes it."""
    inner = problem.get("error")
    if isinstance(inner, dict):
        return error_text(inner)
    if isinstance(inner, (str, int)) and not isinstance(inner, bool):
        return error_text(inner)
    return str(problem.get("detail") or problem.get("title") or "")


def one_line(text: str) -> str:
    """Return what the other side wrote in one line, and not longer than a person reads."""
    line = re.sub(r"\s+", " ", re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text)).strip()
    return line if len(line) <= LONGEST_DETAIL else line[:LONGEST_DETAIL] + "…"


def error_text(error: object) -> str:
    """Return PatrolServer's error in words: it may be a text, a code, or both in a dictionary."""
    if isinstance(error, dict):
        parts = [str(error[key]) for key in ("code", "message") if error.get(key) not in (None, "")]
        return ": ".join(parts) or "an error without a text"
    return str(error)
