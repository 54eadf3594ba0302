"""Which values the log masks, while secrets are rotated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patrolserver_exporter.config.hidden import Hidden

if TYPE_CHECKING:
    from patrolserver_exporter.config.schema import Config
    from patrolserver_exporter.logs import Redactor


class Masking:
    """Registers every secret with the log before it can be logged."""

    def __init__(self, redactor: Redactor, config: Config) -> None:
        self._redactor = redactor
        self._hidden = Hidden(config)
        self._values = self._hidden.values()

    def follow(self, config: Config) -> None:
        """Mask what this configuration hides by now.

        A file may have been rotated and read again. Nothing logs a secret, so once a second is soon enough.
        """
        if config is not self._hidden.config:
            self._hidden = Hidden(config)
        values = self._hidden.values()
        if values != self._values:
            self._values = values
            self._redactor.register(*values)
