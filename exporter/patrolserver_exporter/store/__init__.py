"""The state of the service: one schema for SQLite and PostgreSQL, one thread that writes, readers beside it."""

from patrolserver_exporter.store.copying import copy_store
from patrolserver_exporter.store.database import Look, Store, rebuild
from patrolserver_exporter.store.errors import (
    ClaimLost,
    LeaseLost,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreLocked,
    StoreUnavailable,
)
from patrolserver_exporter.store.reach import check_usable, look_over, still_away, why_unusable
from patrolserver_exporter.store.threads import Unit

__all__ = [
    "ClaimLost",
    "LeaseLost",
    "Look",
    "Store",
    "StoreBusy",
    "StoreCorrupt",
    "StoreError",
    "StoreLocked",
    "StoreUnavailable",
    "Unit",
    "check_usable",
    "copy_store",
    "look_over",
    "rebuild",
    "still_away",
    "why_unusable",
]
