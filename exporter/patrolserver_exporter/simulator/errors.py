"""What the API answers when a reply does not hold the data."""

from __future__ import annotations


class ApiError(Exception):
    """A call failed: ``{"error": {"code": …, "message": …}}`` (C).

    Codes that the vendor's clients know: 15 host already has an account, 82 e-mail taken, 83 host does not resolve,
    ``too_many_failed_attempts`` and ``different_country`` on login (C). All other codes are the simulator's own (?).
    """

    def __init__(self, status: int, code: int | str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    def document(self) -> dict[str, object]:
        """The ``error`` object."""
        return {"code": self.code, "message": self.message}


def not_found(what: str) -> ApiError:
    """Whatever was asked for is not there, or belongs to another account."""
    return ApiError(404, "not_found", f"{what} does not exist")


def invalid(message: str) -> ApiError:
    """A field of the call is missing or cannot be read."""
    return ApiError(422, "invalid", message)


def host_taken() -> ApiError:
    """Code 15 (C)."""
    return ApiError(409, 15, "An account was already created for this host or a subdomain of this host.")


def email_taken() -> ApiError:
    """Code 82 (C): when it registers the scanner looks for these words, when it changes the address for the code."""
    return ApiError(409, 82, "The email has already been taken.")


def host_unresolved() -> ApiError:
    """Code 83 (C)."""
    return ApiError(422, 83, "The host does not resolve.")
