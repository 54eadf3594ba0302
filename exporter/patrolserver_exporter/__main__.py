"""``python -m patrolserver_exporter``."""

from __future__ import annotations

import sys

from patrolserver_exporter.cli import main

sys.exit(main())
