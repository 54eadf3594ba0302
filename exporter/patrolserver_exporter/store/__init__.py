"""The state of the service: one schema for SQLite and PostgreSQL, one thread, one unit of work at a time."""

from patrolserver_exporter.store.database import Store, rebuild
from patrolserver_exporter.store.errors import ClaimLost, StoreCorrupt, StoreError, StoreLocked, StoreUnavailable
from patrolserver_exporter.store.writer import Unit

__all__ = ["ClaimLost", "Store", "StoreCorrupt", "StoreError", "StoreLocked", "StoreUnavailable", "Unit", "rebuild"]
