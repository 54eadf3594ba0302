"""What can go wrong with the store.

```
StoreError
├── StoreCorrupt      the file is damaged: nothing was started, nothing was overwritten (exit code 3)
├── StoreLocked       another process holds it (exit code 3)
├── StoreUnavailable  it cannot write or be reached right now: disk full, database away
│   ├── StoreBusy     nothing is wrong, but too much is being read at once
│   └── LeaseLost     another process took the database over; this one writes nothing more and ends (exit code 3)
└── ClaimLost         a late worker's write was refused: somebody else holds the delivery by now
```
"""

from __future__ import annotations


class StoreError(Exception):
    """Root of what the store raises."""


class StoreCorrupt(StoreError):
    """The state is damaged. The message says where it is and how to go on."""


class StoreLocked(StoreError):
    """Another process uses the state. The message says which, and what to do."""


class StoreUnavailable(StoreError):
    """The store cannot serve right now; nothing of the unit of work took effect."""


class StoreBusy(StoreUnavailable):
    """Too much is being read; ask again later."""


class LeaseLost(StoreUnavailable):
    """Another process took the store over. The message says which."""


class ClaimLost(StoreError):
    """The delivery's claim is no longer ours, so nothing was written."""
