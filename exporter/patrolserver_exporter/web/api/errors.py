"""An answer that is an error, raised where it is found."""

from __future__ import annotations

from typing import Any

from patrolserver_exporter.web.problems import Problem


class ApiError(Exception):
    """Ends a request with a problem. Further keywords become members of the document."""

    def __init__(self, status: int, detail: str, *, headers: dict[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}
        self.extra = extra

    def problem(self) -> Problem:
        """Return the answer."""
        return Problem(self.status, detail=self.detail, headers=self.headers, **self.extra)
