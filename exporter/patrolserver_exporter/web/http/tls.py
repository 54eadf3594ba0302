"""TLS for the listeners, from the web configuration file; certificates are read again when they change."""

from __future__ import annotations

import logging
import ssl
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from patrolserver_exporter.config.problem import ConfigError, Mistake
from patrolserver_exporter.web.http import web_config
from patrolserver_exporter.web.http.web_config import Signature, WebConfigFile, signature

if TYPE_CHECKING:
    import asyncio

    from patrolserver_exporter.web.http.web_config import TlsSettings


logger = logging.getLogger(__name__)


def build_context(tls: TlsSettings) -> ssl.SSLContext:
    """Return a server's context; raises `ConfigError` that names the file that does not serve."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = tls.min_version, tls.max_version
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if not tls.prefer_server_cipher_suites:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if names := web_config.openssl_names(tls.cipher_suites):
        context.set_ciphers(":".join(names))
    elif tls.cipher_suites:
        # All that is named is of TLS 1.3.
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    for curve in tls.curve_preferences:
        context.set_ecdh_curve(curve)
    _load_certificate(context, tls)
    if tls.client_ca_file:
        _load_client_ca(context, tls.client_ca_file)
        context.verify_mode = tls.client_auth_type
    return context


def _load_certificate(context: ssl.SSLContext, tls: TlsSettings) -> None:
    try:
        # Without a password of ours OpenSSL would ask for one on the terminal.
        context.load_cert_chain(tls.cert_file, tls.key_file, password="")
    except ssl.SSLError as error:
        reason = error.reason or "no PEM"
        message = f"is no pair of a certificate and its key without passphrase with {tls.key_file.name} ({reason})"
        raise _unusable(tls.cert_file, message) from None
    except OSError as error:
        raise _unusable(tls.cert_file, f"or {tls.key_file.name} cannot be read ({error.strerror})") from None


def _load_client_ca(context: ssl.SSLContext, file: Path) -> None:
    try:
        context.load_verify_locations(file)
    except ssl.SSLError as error:
        raise _unusable(file, f"holds no certificates in PEM ({error.reason or 'no PEM'})") from None
    except OSError as error:
        raise _unusable(file, f"cannot be read ({error.strerror})") from None


def _unusable(file: Path, message: str) -> ConfigError:
    return ConfigError((Mistake(str(file), None, None, "", message),))


class ServerTls:
    """The context that the listeners have, and the one in force, which each handshake is switched to."""

    def __init__(self, file: WebConfigFile, tls: TlsSettings) -> None:
        self._file = file
        self._seen: tuple[TlsSettings, Signature] = (tls, signature(*tls.files))
        self._tls = tls
        self._current = build_context(tls)
        self.context = build_context(tls)
        self.context.sni_callback = self._switch

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
        return any(value in allowed for _, value in certificate.get("subjectAltName", ()))


def _without_files(tls: TlsSettings) -> TlsSettings:
    nowhere = Path()
    return replace(tls, cert_file=nowhere, key_file=nowhere, client_ca_file=None, client_allowed_sans=None)
