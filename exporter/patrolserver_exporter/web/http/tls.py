"""TLS for the listeners, from the web configuration file; certificates are read again when they change."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from patrolserver_exporter.config.problem import ConfigError, Mistake
from patrolserver_exporter.lasting import ThrottledLog
from patrolserver_exporter.web.http import web_config
from patrolserver_exporter.web.http.web_config import Signature, WebConfigFile, signature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from patrolserver_exporter.web.http.protocol import Timeouts
    from patrolserver_exporter.web.http.web_config import TlsSettings


logger = logging.getLogger(__name__)


_PLAIN_HTTP = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
"""The answer that Go's servers give."""
_HTTP_METHODS = tuple(
    f"{name} ".encode()[:5] for name in ("GET /", "HEAD", "POST", "PUT /", "OPTIONS", "DELETE", "PATCH")
)
_UNTRUSTED_BY_CLIENT = ("ALERT_UNKNOWN_CA", "ALERT_BAD_CERTIFICATE", "ALERT_CERTIFICATE_UNKNOWN", "CERTIFICATE_EXPIRED")


class HandshakeFailed(ssl.SSLError):
    """TLS could not be agreed on; ``answer`` is what the client has to be sent for it."""

    def __init__(self, kind: str, why: str, answer: bytes) -> None:
        super().__init__(1, why)
        self.kind = kind
        self.why = why
        self.answer = answer


class _Talk(ssl.SSLObject):
    """One connection's TLS, which keeps what OpenSSL would have a failed client told: asyncio throws that away."""

    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO
    _is_tls = False

    def do_handshake(self) -> None:
        """Go on with it; raises `HandshakeFailed` when there is no way."""
        if not self._is_tls and self.incoming.pending:
            begin = self.incoming.read()
            self.incoming.write(begin)
            if begin.startswith(_HTTP_METHODS):
                raise HandshakeFailed("http", "the client sent an HTTP request to an HTTPS server", _PLAIN_HTTP)
            self._is_tls = len(begin) >= 5
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLEOFError, ssl.SSLSyscallError):
            raise
        except ssl.SSLError as error:
            raise HandshakeFailed(*_reason(error), self.outgoing.read()) from None


def _reason(error: ssl.SSLError) -> tuple[str, str]:
    reason = error.reason or "unknown reason"
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "certificate", "the client has no certificate, and client_auth_type asks for one"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "certificate", f"the client's certificate is not trusted: {error.verify_message}"
    if reason.endswith(_UNTRUSTED_BY_CLIENT):
        return "distrust", "the client does not trust the certificate of this exporter"
    return "other", reason.lower().replace("_", " ")


class _Context(ssl.SSLContext):
    """A context whose connections are `_Talk`."""

    sslobject_class = _Talk

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """As the standard library does it, and keep both ends at hand."""
        talk = super().wrap_bio(incoming, outgoing, *args, **kwargs)
        assert isinstance(talk, _Talk)  # noqa: S101 - the class above
        talk.incoming, talk.outgoing = incoming, outgoing
        return talk


def build_context(tls: TlsSettings) -> ssl.SSLContext:
    """Return a server's context; raises `ConfigError` that names the file that does not serve."""
    context = _Context(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = tls.min_version, tls.max_version
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if not tls.prefer_server_cipher_suites:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    names = web_config.openssl_names(tls.cipher_suites)
    if tls.cipher_suites and not names:
        # All that is named is of TLS 1.3.
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_ciphers(":".join(names or web_config.SAFE))
    for curve in tls.curve_preferences:
        context.set_ecdh_curve(curve)
    _load_certificate(context, tls)
    context.verify_mode = tls.client_auth_type
    if tls.trusts_system_roots:
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
    elif tls.client_auth_type is not ssl.CERT_NONE:
        _load_client_ca(context, tls)
    return context


def _load_certificate(context: ssl.SSLContext, tls: TlsSettings) -> None:
    cert_place = tls.cert_file or "tls_server_config.cert"
    key_place = tls.key_file.name if tls.key_file else "tls_server_config.key"
    try:
        with _file_with(tls.cert_file, tls.cert) as cert, _file_with(tls.key_file, tls.key) as key:
            # Without a password of ours OpenSSL would ask for one on the terminal.
            context.load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        reason = error.reason or "no PEM"
        message = f"is no pair of a certificate and its key without passphrase with {key_place} ({reason})"
        raise _unusable(cert_place, message) from None
    except OSError as error:
        raise _unusable(cert_place, f"or {key_place} cannot be read ({error.strerror})") from None


@contextlib.contextmanager
def _file_with(file: Path | None, text: str | None) -> Iterator[str]:
    """Give the file's path, or that of one in memory with the text: Python reads certificates and keys from files."""
    if text is None:
        yield str(file)
        return
    with os.fdopen(os.memfd_create("pem", os.MFD_CLOEXEC), "wb") as memory:
        memory.write(text.encode())
        memory.flush()
        yield f"/proc/self/fd/{memory.fileno()}"


def _load_client_ca(context: ssl.SSLContext, tls: TlsSettings) -> None:
    place = tls.client_ca_file or "tls_server_config.client_ca"
    try:
        context.load_verify_locations(cafile=tls.client_ca_file, cadata=tls.client_ca)
    except ssl.SSLError as error:
        raise _unusable(place, f"holds no certificates in PEM ({error.reason or 'no PEM'})") from None
    except OSError as error:
        raise _unusable(place, f"cannot be read ({error.strerror})") from None


def _unusable(place: Path | str, message: str) -> ConfigError:
    return ConfigError((Mistake(str(place), None, None, "", message),))


class ServerTls:
    """The context that the listeners have, and the one in force, which each handshake is switched to."""

    def __init__(self, file: WebConfigFile, tls: TlsSettings) -> None:
        self._file = file
        self._seen: tuple[TlsSettings, Signature] = (tls, signature(*tls.files))
        self._tls = tls
        self._current = build_context(tls)
        self.context = build_context(tls)
        self.context.sni_callback = self._switch
        self._failures = ThrottledLog(logger, level=logging.INFO)

    @classmethod
    def of(cls, file: WebConfigFile | None) -> ServerTls | None:
        """Return TLS as the file says, or None without; raises `ConfigError` when a certificate cannot be used."""
        tls = file.current().tls_server_config if file is not None else None
        return cls(file, tls) if file is not None and tls is not None else None

    def _switch(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        # OpenSSL calls this for each handshake, whether the client names a server or not.
        self._refresh()
        connection.context = self._current

    def _refresh(self) -> None:
        tls = self._file.current().tls_server_config
        if tls is None:
            return
        seen = (tls, signature(*tls.files))
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._current = build_context(tls)
        except ConfigError as error:
            logger.error("a certificate changed but cannot be used, the old one stays in force: %s", error)  # noqa: TRY400 - the text says it all
            return
        if _without_files(tls) != _without_files(self._tls):
            logger.warning("the changes in tls_server_config other than files and names take effect after a restart")
        self._tls = tls
        logger.info("the certificate was read again")

    def admits(self, transport: asyncio.Transport) -> bool:
        """Whether the client's certificate, verified already, has one of the names that are allowed."""
        allowed = self._tls.client_allowed_sans
        if allowed is None:
            return True
        certificate = transport.get_extra_info("peercert") or {}
        if any(value in allowed for _, value in certificate.get("subjectAltName", ())):
            return True
        why = "the client's certificate has none of the names in client_allowed_sans"
        self.note("certificate", why, transport.get_extra_info("peername"))
        return False

    def note(self, kind: str, why: str, peer: Any) -> None:
        """Say in the log why TLS with a client came to nothing."""
        client = peer[0] if isinstance(peer, tuple) and peer else None
        self._failures.say(kind, "A TLS handshake failed", client=client, err=why)


def _without_files(tls: TlsSettings) -> TlsSettings:
    files = replace(tls, cert_file=None, key_file=None, client_ca_file=None, client_allowed_sans=None)
    return replace(files, cert=None, key=None, client_ca=None)


class TlsServer:
    """Accepts connections on a socket and agrees on TLS with each client; one that fails is told why, as is the log.

    asyncio's own server closes such a connection without a word. Start it, `close` it, `wait_closed`.
    """

    def __init__(
        self,
        sock: socket.socket,
        tls: ServerTls,
        connect: Callable[[], asyncio.Protocol],
        timeouts: Timeouts,
    ) -> None:
        self._socket = sock
        self._tls = tls
        self._connect = connect
        self._timeouts = timeouts
        self._talks: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.get_running_loop().create_task(self._accept())

    def close(self) -> None:
        """Accept no more, and break off what is not agreed on yet."""
        self._accepting.cancel()
        for talk in self._talks:
            talk.cancel()

    async def wait_closed(self) -> None:
        """Wait until that is done."""
        await asyncio.wait({self._accepting, *self._talks})
        self._socket.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(self._socket)
            except ConnectionError:
                continue
            except OSError as error:
                # No descriptor is left, which others give back.
                logger.error("no connection can be accepted: %s", error.strerror)  # noqa: TRY400 - the text says it all
                await asyncio.sleep(1.0)
                continue
            talk = loop.create_task(self._agree(connection, peer))
            self._talks.add(talk)
            talk.add_done_callback(self._talks.discard)

    async def _agree(self, connection: socket.socket, peer: Any) -> None:
        loop = asyncio.get_running_loop()
        # The loop closes a connection that fails at once: this keeps it open for a last word.
        with connection.dup() as last_word:
            try:
                await loop.connect_accepted_socket(
                    self._connect,
                    connection,
                    ssl=self._tls.context,
                    ssl_handshake_timeout=self._timeouts.handshake,
                    ssl_shutdown_timeout=self._timeouts.write,
                )
            except HandshakeFailed as error:
                self._tls.note(error.kind, error.why, peer)
                last_word.setblocking(False)  # noqa: FBT003 - positional only
                with contextlib.suppress(OSError, TimeoutError):
                    async with asyncio.timeout(self._timeouts.half_closed):
                        await _say(last_word, error.answer)
            except OSError as error:
                logger.debug("a TLS handshake came to no end: %s", error)


async def _say(connection: socket.socket, answer: bytes) -> None:
    """Send it, and take in what still comes: closing with bytes unread would take the answer back."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, answer)
    connection.shutdown(socket.SHUT_WR)
    while await loop.sock_recv(connection, 64 * 1024):
        pass
