"""Go's names of cipher suites and curves, which ``web.config.file`` uses, and OpenSSL's names of the same."""

from __future__ import annotations

from patrolserver_exporter.config.problem import Unfit

TLS13 = frozenset({"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"})
"""All of these are always on: neither Go nor Python can choose among them."""

TLS12 = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
}
CURVES = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}


def suite(name: str) -> str:
    """Return the name when Go knows such a suite and holds it to be safe; raises `Unfit`."""
    if name not in TLS12 and name not in TLS13:
        raise Unfit("is no cipher suite that Go's crypto/tls names as secure")
    return name


def openssl_names(suites: tuple[str, ...]) -> tuple[str, ...]:
    """Return the TLS 1.2 suites in OpenSSL's names and the same order."""
    return tuple(TLS12[name] for name in suites if name in TLS12)


def is_choice_of_tls13(suites: tuple[str, ...]) -> bool:
    """Whether some suites of TLS 1.3 are named but not all."""
    return 0 < len(TLS13.intersection(suites)) < len(TLS13)


def curve(name: str) -> str:
    """Return OpenSSL's name of the curve; raises `Unfit`."""
    if name not in CURVES:
        raise Unfit(f"needs one of {', '.join(CURVES)}")
    return CURVES[name]
