"""The PatrolServer API stand-in: for tests, trials and the demo. It knows nothing of the product.

It follows ``docs/simulator.md``, and that follows ``docs/patrolserver-api.md`` with its grades: D documented,
C seen in the vendor's clients, ? unknown.
"""

from __future__ import annotations

from .faults import Fault
from .options import SimulatorOptions
from .replies import ReplyRule
from .server import Simulator, serve
from .webhooks import Format
from .wire import Style

__all__ = ["Fault", "Format", "ReplyRule", "Simulator", "SimulatorOptions", "Style", "serve"]
