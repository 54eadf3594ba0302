# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets are cut out of every text that leaves, raw and in each form that a URL gives them."""

from __future__ import annotations

import base64
import json
import os
import re
from urllib.parse import quote, quote_plus, unquote
from xml.sax.saxutils import escape

MASK = "********"
# What base64 makes of shorter ones, alone and within a longer text, could be any text.
SHORTEST, SHORTEST_WITHIN = 4, 6
SECRET_OPTIONS = ("token", "password", "api_key", "api_secret", "verification_token")
PROXY_VARIABLES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")


def spellings(secret: str) -> set[str]:
    """Return the secret as it may appear: raw, percent-encoded, as a form field, quoted, escaped, and in base64."""
    raw = secret.encode("utf-8", "surrogatepass")
    found = {secret, quote(raw), quote(raw, safe=""), quote_plus(raw)}
    # An encoder may write %2f for %2F, and one may encode more than needed.
    found.add("".join("%{0:02X}".format(byte) for byte in raw))
    found |= {repr(secret)[1:-1], repr(raw)[2:-1], json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    found |= {escape(secret), escape(secret, {'"': "&quot;", "'": "&#x27;"})}
    found.add(json.dumps(secret)[1:-1].replace("/", "\\/"))
    found |= {form for encoded in _base64_of(raw) for form in (encoded, quote(encoded, safe=""))}
    return found


def _base64_of(raw: bytes) -> set[str]:
    """Return the secret in base64, by itself and within a longer text, at each of three offsets."""
    if len(raw) < SHORTEST:
        return set()
    alone = {encode(raw).decode("ascii").rstrip("=") for encode in (base64.b64encode, base64.urlsafe_b64encode)}
    if len(raw) < SHORTEST_WITHIN:
        return alone
    within = set()
    for before in range(3):
        # What is before and behind it changes the characters at its ends: only those in between are certain.
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(b"\0" * before + raw).decode("ascii").rstrip("=")
            within.add(text[(before * 8 + 5) // 6 : (before + len(raw)) * 8 // 6])
    return alone | within


def secrets_of(params: dict) -> list[str]:
    """Return all secrets of a module's or plugin's options, as given and as they are used, and those of proxies' URLs."""
    found = [params.get(name) for name in SECRET_OPTIONS]
    found += [value.strip() for value in found if value]
    if params.get("username") and params.get("password"):
        for user in (params["username"], params["username"].strip("\r\n")):
            for password in (params["password"], params["password"].strip("\r\n")):
                found += [basic_pair(user, password), basic_credentials(user, password).partition(" ")[2]]
    if params.get("password"):
        found.append(params["password"].strip("\r\n"))
    proxies = [params.get("proxy_url"), *(os.environ.get(name) for name in PROXY_VARIABLES)]
    for url in [*proxies, params.get("exporter_url"), params.get("api_url")]:
        found += url_secrets(url)
    return [secret for secret in dict.fromkeys(found) if secret and secret.strip()]


class Redactor:
    """Knows the secrets of one connection and cuts them out of texts."""

    def __init__(self, secrets: list[str | None]) -> None:
        forms = set()
        for secret in secrets:
            if secret:
                forms |= spellings(secret)
        # The longest first, so that no rest of an encoded form survives the replacement of a shorter one.
        ordered = sorted((form for form in forms if form), key=len, reverse=True)
        self._pattern = re.compile("|".join(re.escape(form) for form in ordered), re.IGNORECASE) if ordered else None

    def __call__(self, text: object) -> str:
        """Return the text without any secret."""
        plain = str(text)
        return self._pattern.sub(MASK, plain) if self._pattern else plain


def url_secrets(url: str | None) -> list[str]:
    """Return the user and password that a URL carries, as written and as meant; nothing for a URL without them."""
    if not url or "@" not in url:
        return []
    # By hand: a parser drops control characters, and refuses what is broken, which may hold a password all the same.
    pair = url.partition("://")[2] or url
    pair = pair.rpartition("@")[0]
    password = pair.partition(":")[2]
    found = [pair, unquote(pair), password, unquote(password), "".join(pair.split()), "".join(password.split())]
    return [part for part in dict.fromkeys(found) if part]


def basic_pair(username: str, password: str) -> str:
    """Return what basic authentication encodes."""
    return "{0}:{1}".format(username, password)


def basic_credentials(username: str, password: str) -> str:
    """Return the value of a basic ``Authorization`` header."""
    return "Basic " + base64.b64encode(basic_pair(username, password).encode("utf-8", "surrogatepass")).decode("ascii")
