"""Which values the log masks, while secrets are rotated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patrolserver_exporter.config.hidden import hidden_values

if TYPE_CHECKING:
    from patrolserver_exporter.config.schema import Config
    from patrolserver_exporter.logs import Redactor


class Masking:
    """Registers every secret with the log before it can be logged."""

    def __init__(self, redactor: Redactor, config: Config) -> None:
        self._redactor = redactor
        self._hidden = hidden_values(config)

    def follow(self, config: Config) -> None:
        """Mask what this configuration hides by now.

        A file may have been rotated and read again. Nothing logs a secret, so once a second is soon enough.
        """
        hidden = hidden_values(config)
        if hidden != self._hidden:
            self._hidden = hidden
            self._redactor.register(*hidden)
