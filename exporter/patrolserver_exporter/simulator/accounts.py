"""Accounts: registering, logging in, and the key and secret of every call (C).

The grades D, C and ? are those of docs/patrolserver-api.md.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from hmac import compare_digest

from .wire import ApiError, email_taken, invalid, not_found

MAX_FAILED_LOGINS = 5
BLOCKED_SECONDS = 600.0


@dataclass(slots=True)
class Account:
    """Who owns servers and webhooks."""

    id: int
    email: str
    password: str = field(repr=False)
    key: str = field(repr=False)
    secret: str = field(repr=False)
    login_error: str | None = None
    """What logging in fails with, by order of a test: ``different_country``, say."""
    failed_logins: list[float] = field(default_factory=list)

    def document(self) -> dict[str, object]:
        """The account as the API shows it."""
        return {"id": self.id, "email": self.email}

    def credentials(self) -> dict[str, object]:
        """``{user, api_credentials}``, as registering and logging in return it."""
        return {"user": self.document(), "api_credentials": {"key": self.key, "secret": self.secret}}


class Accounts:
    """All accounts of the simulator."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._accounts: dict[int, Account] = {}
        self._next = 1

    def add(self, email: str, password: str, *, key: str | None = None, secret: str | None = None) -> Account:
        """A new account.

        Raises:
            ApiError: the address is no e-mail address, or taken (82).
        """
        self._refuse_address(email)
        account = Account(self._next, email, password, key or self._token("key")[:32], secret or self._token("secret"))
        self._accounts[account.id] = account
        self._next += 1
        return account

    def authenticated(self, key: str, secret: str) -> Account:
        """The account of that key and secret.

        Raises:
            ApiError: 401, there is none.
        """
        for account in self._accounts.values():
            if compare_digest(account.key.encode(), key.encode()):
                if compare_digest(account.secret.encode(), secret.encode()):
                    return account
                break
        raise ApiError(401, "unauthorized", "The key and secret are not valid.")

    def logged_in(self, email: str, password: str, now: float) -> Account:
        """The account of that address and password.

        Raises:
            ApiError: wrong, or ``too_many_failed_attempts`` in ten minutes, or what a test ordered.
        """
        account = next((one for one in self._accounts.values() if one.email == email), None)
        if account is None:
            raise _wrong_login()
        if account.login_error:
            raise ApiError(403, account.login_error, "Your login is temporarily blocked.")
        account.failed_logins = [at for at in account.failed_logins if at + BLOCKED_SECONDS > now]
        if len(account.failed_logins) >= MAX_FAILED_LOGINS:
            raise ApiError(403, "too_many_failed_attempts", "Your login is blocked, try again in 10 minutes.")
        if not compare_digest(account.password.encode(), password.encode()):
            account.failed_logins.append(now)
            raise _wrong_login()
        account.failed_logins.clear()
        return account

    def move(self, account: Account, email: str) -> None:
        """Change the address.

        Raises:
            ApiError: it is no e-mail address, or another account's (82).
        """
        if email != account.email:
            self._refuse_address(email)
        account.email = email

    def remove(self, account: Account) -> None:
        """The account is gone, and so are its credentials."""
        self._accounts.pop(account.id, None)

    def by_email(self, email: str) -> Account:
        """The account of that address.

        Raises:
            ApiError: 404, there is none.
        """
        for account in self._accounts.values():
            if account.email == email:
                return account
        raise not_found("User")

    def _refuse_address(self, email: str) -> None:
        name, at, host = email.rpartition("@")
        if not (name and at and host):
            raise invalid("The email must be a valid email address.")
        if any(account.email == email for account in self._accounts.values()):
            raise email_taken()

    def _token(self, what: str) -> str:
        return hashlib.sha256(f"{self._seed}:{what}:{self._next}".encode()).hexdigest()


def _wrong_login() -> ApiError:
    return ApiError(403, "wrong_credentials", "The email or password is wrong.")
