"""The short name that an issue keeps for life."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Container

    from patrolserver_exporter.issues.model import Identity

_BYTES = 8


def fingerprint(account: str, server_id: int, identity: Identity, taken: Container[str] = ()) -> str:
    """16 hexadecimal digits of a hash over the identity at birth.

    An issue may have moved on from its identity at birth, as a reported one does when a poll tells its location. If
    another is then born there, the fingerprint is in ``taken``, and the next one of the same sequence is given.
    """
    ordinal = 0
    while (candidate := _hash(account, server_id, identity, ordinal)) in taken:
        ordinal += 1
    return candidate


def _hash(account: str, server_id: int, identity: Identity, ordinal: int) -> str:
    parts = [account, server_id, identity.canonical_name, identity.location, identity.issue_class, ordinal]
    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=_BYTES).hexdigest()
