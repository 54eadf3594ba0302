# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of a connection as they are used. What cannot be meant is refused by the option's name, and never repeated."""

from __future__ import annotations

import math
import os
import ssl
import unicodedata
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment

from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import InvalidInput

EXPORTER_OPTIONS = ("exporter_url", "token", "username", "password")
API_OPTIONS = ("api_url", "api_key", "api_secret")
HTTP_OPTIONS = (
    "validate_certs",
    "ca_file",
    "client_cert",
    "client_key",
    "use_proxy",
    "proxy_url",
    "timeout",
    "retries",
)
# The variable that each option of a connection is taken from; in capitals, it is the environment's.
EXPORTER_VARIABLES = {
    option: "patrolserver_exporter_" + option.replace("exporter_", "", 1) for option in EXPORTER_OPTIONS + HTTP_OPTIONS
}
API_VARIABLES = {
    **{option: "patrolserver_api_" + option for option in HTTP_OPTIONS},
    "api_url": "patrolserver_api_url",
    "api_key": "patrolserver_key",
    "api_secret": "patrolserver_secret",
}
TEXTS = (
    "exporter_url",
    "api_url",
    "token",
    "username",
    "password",
    "api_key",
    "api_secret",
    "proxy_url",
    "ca_file",
    "client_cert",
    "client_key",
)
# A blank at their ends may be part of them; a line break is what a vault or a file adds.
KEEP_BLANKS = ("username", "password", "api_secret")
FILES = ("ca_file", "client_cert", "client_key")
LONGEST = 86400
API_PATH = "/api/v1"
_NO_TLS_TO_A_PROXY = (
    "it starts with https://, and a proxy is not spoken to in TLS from here, nor in plain where TLS was asked for; name one with http:// "
    "in proxy_url"
)


def checked(params: dict, url_option: str) -> dict:
    """Return the options of a connection, ready for use: without line breaks at their ends, and each of them possible.

    :raises InvalidInput: which names the option and holds nothing of its value.
    """
    used = dict(params)
    for name in TEXTS:
        if params.get(name):
            used[name] = _text(name, params[name])
    for name in ("api_key", "api_secret"):
        if name in params and not used[name]:
            raise InvalidInput("{0}: it is empty".format(name))
    if used.get("token"):
        _check_header("token", used["token"])
    if ":" in (used.get("username") or ""):
        raise InvalidInput("username: it holds a colon, which basic authentication cannot carry")
    used[url_option] = _url(url_option, params.get(url_option) or "")
    if used.get("proxy_url"):
        used["proxy_url"] = _proxy("proxy_url", used["proxy_url"])
    elif used.get("use_proxy", True):
        _check_environment(used[url_option])
    _check_numbers(params)
    _check_files(used, url_option)
    return used


def endpoint(url: str) -> str:
    """Return host and port of a URL, which hold no secret."""
    parts = urlsplit(url if "://" in url else "http://" + url)
    try:
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return "(unreadable)"
    return ("[{0}]:{1}" if ":" in host else "{0}:{1}").format(host, port)


def _text(name: str, value: str) -> str:
    text = value.strip("\r\n") if name in KEEP_BLANKS else value.strip()
    if not text:
        raise InvalidInput("{0}: there is nothing but blanks in it".format(name))
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs") or character in "\u2028\u2029":
            told = "{0}: it holds a control character, U+{1:04X}; check where it comes from"
            raise InvalidInput(told.format(name, ord(character)))
    return text


def _check_header(name: str, text: str) -> None:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        raise InvalidInput("{0}: it holds a character that no HTTP header can carry".format(name)) from None


def _url(name: str, text: str) -> str:
    text = text.strip()
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not _has_blanks(text)
    except ValueError:
        usable = False
    if not usable:
        raise InvalidInput("{0}: it has to start with http:// or https:// and name a host".format(name))
    if "@" in parts.netloc:
        raise InvalidInput("{0}: it holds credentials; give them in their own options instead".format(name))
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise InvalidInput("{0}: it must have neither query nor fragment".format(name))
    if name == "exporter_url" and (parts.path.rstrip("/") + "/").find(API_PATH + "/") >= 0:
        raise InvalidInput("{0}: it has the path of the API, {1}; leave that out, it is added".format(name, API_PATH))
    return text.rstrip("/")


def _has_blanks(text: str) -> bool:
    return any(character.isspace() for character in text)


def proxy_of_environment(url: str) -> str | None:
    """Return the proxy that the environment names for a URL; nothing if there is none."""
    parts = urlsplit(url)
    return None if proxy_bypass_environment(parts.netloc) else getproxies_environment().get(parts.scheme) or None


def _check_environment(url: str) -> None:
    proxy = proxy_of_environment(url)
    if proxy and proxy.strip().lower().startswith("https:"):
        name = urlsplit(url).scheme + "_proxy"
        raise InvalidInput("{0} of the environment: {1}, or set use_proxy: false".format(name, _NO_TLS_TO_A_PROXY))


def _proxy(name: str, url: str) -> str:
    url = url if "://" in url else "http://" + url
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not _has_blanks(url)
    except ValueError:
        usable = False
    if not usable:
        raise InvalidInput("{0}: it has to start with http:// and name a host".format(name))
    if parts.scheme == "https":
        raise InvalidInput("{0}: {1}".format(name, _NO_TLS_TO_A_PROXY))
    return url


def _check_numbers(params: dict) -> None:
    timeout, retries = params.get("timeout"), params.get("retries")
    if timeout is not None and not (math.isfinite(timeout) and 0 < timeout <= LONGEST):
        raise InvalidInput("timeout: it has to be more than 0 seconds and at most {0}, not {1:g}".format(LONGEST, timeout))
    if retries is not None and retries < 0:
        raise InvalidInput("retries: it has to be 0 or more, not {0}".format(retries))


def _check_files(used: dict, url_option: str) -> None:
    for name in FILES:
        path = used.get(name)
        if path:
            _check_file(name, path)
    if used.get("ca_file") and used[url_option].startswith("https:"):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(used["ca_file"])
        except (ssl.SSLError, OSError, ValueError):
            raise InvalidInput("ca_file: {0} holds no certificate in PEM".format(used["ca_file"])) from None


def _check_file(name: str, path: str) -> None:
    if os.path.isdir(path):
        raise InvalidInput("{0}: {1} is a folder, and a file is needed".format(name, path))
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise InvalidInput("{0}: {1} cannot be read: {2}".format(name, path, error.strerror or error)) from None
