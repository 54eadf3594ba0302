"""The fleet: servers with realistic names and software, drawn from a seed. Pure, lazy and cheap: nothing is kept."""

from __future__ import annotations

import random
import re
from bisect import bisect
from functools import cache, lru_cache

from msgspec.structs import replace

from .catalogue import NODE_PLACES, PRODUCTS, ROLES, SITES, SLOTS, Product
from .software import Kind, Software, altered

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
