"""The fleet: real products with made-up troubles, on servers with realistic names; all drawn from a seed.

Pure, lazy and cheap: nothing is kept.
"""

from __future__ import annotations

import random
import re
from bisect import bisect
from dataclasses import dataclass
from functools import cache, lru_cache

from msgspec.structs import replace

from .software import Kind, Software, altered

_TABLE = """
# canonical name             | name               | parent            | place | newest   | older in its line | ended
debian                       | Debian             |                   | /     | 12.8     | 12.5              | 9.13
linux                        | Linux kernel       |                   | /     | 6.1.119  | 6.1.94            | 4.9.337
openssl                      | OpenSSL            |                   | /     | 3.0.15   | 3.0.11            | 1.1.1w
openssh                      | OpenSSH            |                   | /     | 9.9p1    | 9.6p1             | 7.4p1
bash                         | Bash               |                   | /     | 5.2.37   | 5.2.15            | 4.2.46
nginx                        | nginx              |                   | /     | 1.26.2   | 1.26.0            | 1.18.0
apache                       | Apache HTTP Server |                   | /     | 2.4.62   | 2.4.57            | 2.2.34
php                          | PHP                |                   | /     | 8.3.14   | 8.3.6             | 7.4.33
python                       | Python             |                   | /     | 3.12.7   | 3.12.3            | 2.7.18
nodejs                       | Node.js            |                   | /     | 22.11.0  | 22.3.0            | 16.20.2
perl                         | Perl               |                   | /     | 5.40.0   | 5.38.0            | 5.16.3
mysql                        | MySQL              |                   | /     | 8.4.3    | 8.4.0             | 5.7.44
mariadb                      | MariaDB            |                   | /     | 11.4.4   | 11.4.2            | 10.3.39
postgresql                   | PostgreSQL         |                   | /     | 16.6     | 16.2              | 11.22
redis                        | Redis              |                   | /     | 7.4.1    | 7.4.0             | 5.0.14
memcached                    | memcached          |                   | /     | 1.6.32   | 1.6.21            | 1.4.39
haproxy                      | HAProxy            |                   | /     | 3.0.7    | 3.0.2             | 2.0.35
varnish                      | Varnish Cache      |                   | /     | 7.6.1    | 7.6.0             | 4.1.11
postfix                      | Postfix            |                   | /     | 3.9.1    | 3.9.0             | 3.1.15
dovecot                      | Dovecot            |                   | /     | 2.3.21.1 | 2.3.20            | 2.2.36
exim                         | Exim               |                   | /     | 4.98     | 4.97.1            | 4.89
bind                         | BIND               |                   | /     | 9.18.31  | 9.18.24           | 9.11.37
docker                       | Docker             |                   | /     | 27.3.1   | 27.0.3            | 19.03.15
git                          | Git                |                   | /     | 2.47.1   | 2.47.0            | 1.8.3.1
sudo                         | sudo               |                   | /     | 1.9.16p2 | 1.9.15p5          | 1.8.23
curl                         | curl               |                   | /     | 8.11.0   | 8.9.1             | 7.29.0
rsync                        | rsync              |                   | /     | 3.3.0    | 3.2.7             | 3.0.9
jenkins                      | Jenkins            |                   | /     | 2.479.2  | 2.479.1           | 2.60.3
openvpn                      | OpenVPN            |                   | /     | 2.6.12   | 2.6.9             | 2.3.18
samba                        | Samba              |                   | /     | 4.21.2   | 4.21.0            | 4.10.18
phpmyadmin                   | phpMyAdmin         |                   | site  | 5.2.1    | 5.2.0             | 4.9.11
wordpress                    | WordPress          |                   | site  | 6.7.1    | 6.7               | 4.9.26
wordpress/akismet            | Akismet            | wordpress         | site  | 5.3.5    | 5.3.1             | 3.3.4
wordpress/woocommerce        | WooCommerce        | wordpress         | site  | 9.4.2    | 9.4.0             | 3.9.5
wordpress/contact-form-7     | Contact Form 7     | wordpress         | site  | 6.0.1    | 6.0               | 4.9.2
wordpress/wordpress-seo      | Yoast SEO          | wordpress         | site  | 23.9     | 23.4              | 7.9.1
drupal                       | Drupal             |                   | site  | 10.3.10  | 10.3.6            | 7.98
drupal/views                 | Views              | drupal            | site  | 3.29     | 3.25              | 2.18
drupal/ctools                | Chaos Tools        | drupal            | site  | 4.1.0    | 4.0.4             | 1.21
joomla                       | Joomla!            |                   | site  | 5.2.2    | 5.2.0             | 3.10.12
roundcube                    | Roundcube          |                   | site  | 1.6.9    | 1.6.5             | 1.3.17
laravel/laravel              | laravel/laravel    |                   | site  | 11.3.3   | 11.3.0            | 5.8.38
symfony/http-kernel          | symfony/http-kernel| laravel/laravel   | site  | 7.1.9    | 7.1.2             | 4.4.51
guzzlehttp/guzzle            | guzzlehttp/guzzle  | laravel/laravel   | site  | 7.9.2    | 7.8.1             | 5.3.4
monolog/monolog              | monolog/monolog    | laravel/laravel   | site  | 3.8.0    | 3.7.0             | 1.27.1
npm                          | npm                |                   | node  | 10.9.1   | 10.8.2            | 6.14.18
npm/express                  | express            | npm               | node  | 4.21.1   | 4.19.2            | 3.21.2
npm/lodash                   | lodash             | npm               | node  | 4.17.21  | 4.17.19           | 3.10.1
npm/axios                    | axios              | npm               | node  | 1.7.8    | 1.7.2             | 0.21.4
npm/ws                       | ws                 | npm               | node  | 8.18.0   | 8.17.0            | 5.2.4
npm/minimist                 | minimist           | npm               | node  | 1.2.8    | 1.2.5             | 0.0.10
npm/semver                   | semver             | npm               | node  | 7.6.3    | 7.5.1             | 5.7.2
"""

SITES = ("/var/www/shop", "/var/www/blog", "/var/www/intranet", "/var/www/html", "/srv/www/caf\u00e9")
NODE_PLACES = ("/srv/app/node_modules", "/opt/portal/node_modules")


@dataclass(frozen=True, slots=True)
class Product:
    """A software with what its vendor still supports of it."""

    canonical_name: str
    name: str
    parent: str | None
    place: str
    """``/`` for the system itself, ``site`` or ``node`` for one of those places."""
    newest: str
    older: str
    end_of_life: str


def _read(table: str) -> dict[str, Product]:
    rows = (
        [cell.strip() for cell in line.split("|")] for line in table.splitlines() if line and not line.startswith("#")
    )
    return {
        name: Product(name, shown, parent or None, place, newest, older, end)
        for name, shown, parent, place, newest, older, end in rows
    }


PRODUCTS = _read(_TABLE)

_BASE = ("debian", "linux", "openssl", "openssh")

ROLES: dict[str, tuple[str, ...]] = {
    "web": (*_BASE, "nginx", "php", "wordpress", "wordpress/akismet", "wordpress/contact-form-7", "mariadb"),
    "shop": (*_BASE, "apache", "php", "wordpress", "wordpress/woocommerce", "wordpress/wordpress-seo", "mysql"),
    "app": (*_BASE, "nodejs", "npm", "npm/express", "npm/lodash", "npm/axios", "nginx"),
    "api": (*_BASE, "php", "laravel/laravel", "symfony/http-kernel", "guzzlehttp/guzzle", "monolog/monolog", "nginx"),
    "db": (*_BASE, "postgresql", "sudo", "rsync", "python"),
    "cache": (*_BASE, "redis", "memcached", "haproxy"),
    "mail": (*_BASE, "postfix", "dovecot", "apache", "php", "roundcube"),
    "ci": (*_BASE, "jenkins", "docker", "git", "python", "nodejs"),
    "cms": (*_BASE, "apache", "php", "drupal", "drupal/views", "drupal/ctools", "mysql"),
    "vpn": (*_BASE, "openvpn", "bind", "bash"),
}
"""What a server of that role runs for certain; the rest is drawn."""

SLOTS = (
    ("web", "example.org"),
    ("web", "example.org"),
    ("db", "example.org"),
    ("shop", "example.org"),
    ("app", "example.org"),
    ("mail", "example.org"),
    ("web", "staging.example.org"),
    ("api", "example.org"),
    ("cms", "example.org"),
    ("cache", "example.org"),
    ("ci", "lab.example.org"),
    ("db", "staging.example.org"),
    ("app", "example.org"),
    ("vpn", "example.org"),
    ("web", "example.org"),
    ("app", "lab.example.org"),
)
"""Roles and domains of the servers, in a round."""


_STATES = (
    Kind.MENDED,
    Kind.OUTDATED,
    Kind.UNSUPPORTED,
    Kind.EXPLOITABLE,
    Kind.UNKNOWN,
    Kind.UNDETECTED,
    Kind.CANDIDATES,
)
_EXPLOITABLE = _STATES.index(Kind.EXPLOITABLE)
_TENDED = (0.84, 0.92, 0.95, 0.965, 0.975, 0.99, 1.0)
_NEGLECTED = (0.6, 0.78, 0.88, 0.94, 0.96, 0.98, 1.0)
_RISKS = (3.1, 4.3, 5.3, 6.1, 7.5, 8.8)
"""Of exploits that are there from the start; 9 and above is left to the story and to tests."""


def dice(*parts: object) -> random.Random:
    """Chance that is the same for the same parts, on every machine."""
    return random.Random(":".join(map(str, parts)))  # noqa: S311  nothing here is secret


def server_name(index: int) -> str:
    """Name of the fleet's server number ``index`` (from 0); all differ."""
    turn, position = divmod(index, len(SLOTS))
    role, domain = slot = SLOTS[position]
    number = turn * SLOTS.count(slot) + SLOTS[:position].count(slot) + 1
    return f"{role}-{number:02d}.{domain}"


def software_of(seed: int, index: int, amount: int) -> tuple[Software, ...]:
    """The software of server ``index`` at the start: ``amount`` of it, no two with the same name and place."""
    role, domain = SLOTS[index % len(SLOTS)]
    limits = _TENDED if domain == "example.org" else _NEGLECTED
    chance = dice(seed, index)
    places = {"/": "/", "site": chance.choice(SITES), "node": chance.choice(NODE_PLACES)}
    certain, rest = _shelf(role)
    start = chance.randrange(len(rest))
    names = (*certain, *rest[start:], *rest[:start])[:amount]
    draw = chance.random
    found = []
    for name in names:
        state = bisect(limits, draw())
        risk = int(draw() * len(_RISKS)) if state == _EXPLOITABLE else 0
        found.append(_variant(name, state, places[PRODUCTS[name].place], risk))
    found += [_package(number) for number in range(amount - len(names))]
    return tuple(found)


@cache
def _shelf(role: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a server of that role runs, and what it may run besides: a plugin only where its parent is certain."""
    certain = ROLES[role]
    rest = (name for name, product in PRODUCTS.items() if product.parent in (None, *certain))
    return certain, tuple(name for name in rest if name not in certain)


@cache
def _variant(name: str, state: int, location: str, risk: int) -> Software:
    """The same few objects over and over: what is costly is done once for each, here and where they are written."""
    product = PRODUCTS[name]
    fine = Software(
        name=product.name,
        canonical_name=product.canonical_name,
        version=product.newest,
        supported=True,
        parent=product.parent,
        location=location,
    )
    match _STATES[state]:
        case Kind.OUTDATED:
            return _older(fine, product)
        case Kind.UNSUPPORTED:
            return altered(replace(fine, version=product.end_of_life), Kind.UNSUPPORTED)
        case Kind.EXPLOITABLE:
            serial = 1 + list(PRODUCTS).index(product.canonical_name) * len(_RISKS) + risk
            return altered(_older(fine, product), Kind.EXPLOITABLE, risk=_RISKS[risk], serial=serial)
        case Kind.MENDED:
            return fine
        case _:
            return altered(fine, _STATES[state])


def _older(software: Software, product: Product) -> Software:
    return replace(software, version=product.older, supported=False, newest_bugfix_release=product.newest)


@lru_cache(maxsize=4096)
def _package(number: int) -> Software:
    """One of the many small packages, for servers with more software than the catalogue has."""
    return Software(
        name=f"package-{number}", canonical_name=f"package-{number}", version=f"1.{number % 40}.0", supported=True
    )


def assessed(canonical_name: str, version: str) -> tuple[bool, str | None]:
    """Whether that version is supported, and the version to move to: what a scan says of software a client pushed.

    Software that the catalogue does not know is fine: the simulator has no list of all the world's software.
    """
    product = PRODUCTS.get(canonical_name)
    if product is None or _numbers(version) >= _numbers(product.newest):
        return True, None
    if _numbers(version)[:1] == _numbers(product.newest)[:1]:
        return False, product.newest
    return False, None


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers of the upstream version: a Debian epoch and revision, and what follows a letter, do not count."""
    upstream = re.match(r"(?:\d+:)?([\d.]*)", version, re.ASCII)
    return tuple(int(number) for number in upstream.group(1).split(".") if number) if upstream else ()
