# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets are cut out of every text that leaves, raw and in each form that a URL gives them."""

from __future__ import annotations

import base64
import re
from urllib.parse import quote, quote_plus, urlsplit

MASK = "********"


def spellings(secret: str) -> set[str]:
    """Return the secret as it may appear: raw, percent-encoded with and without slashes, and as a form field."""
    found = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret)}
    # An encoder may write %2f for %2F, and one may encode more than needed.
    found.add("".join("%{0:02X}".format(byte) for byte in secret.encode("utf-8", "surrogatepass")))
    return found


class Redactor:
    """Knows the secrets of one connection and cuts them out of texts."""

    def __init__(self, secrets: list[str | None]) -> None:
        forms = set()
        for secret in secrets:
            if secret:
                forms |= spellings(secret)
        # The longest first, so that no rest of an encoded form survives the replacement of a shorter one.
        ordered = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(re.escape(form) for form in ordered), re.IGNORECASE) if ordered else None

    def __call__(self, text: object) -> str:
        """Return the text without any secret."""
        plain = str(text)
        return self._pattern.sub(MASK, plain) if self._pattern else plain


def url_secrets(url: str | None) -> list[str]:
    """Return the user and password that a URL carries, as written; nothing for a URL without them."""
    if not url:
        return []
    try:
        parts = urlsplit(url)
        return [part for part in (parts.password, parts.netloc.rpartition("@")[0]) if part]
    except ValueError:
        return [url]


def basic_credentials(username: str, password: str) -> str:
    """Return the value of a basic ``Authorization`` header."""
    pair = "{0}:{1}".format(username, password).encode("utf-8")
    return "Basic " + base64.b64encode(pair).decode("ascii")
