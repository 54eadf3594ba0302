# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong while talking to the exporter or to PatrolServer.

PatrolServerError
├── ConnectionFailed   nobody answered, or what answered was not trusted
├── Refused            it answered with an error; ``status`` holds the HTTP status, or 200 for an error in a success
├── Unreadable         it answered with something that is not what the API promises
├── TimedOut           a bounded wait came to its end
└── InvalidInput       what the playbook gave cannot be meant
    └── Unwritten      a file that was asked for was not written
"""

from __future__ import annotations


class PatrolServerError(Exception):
    """Any failure that has a reason worth telling; the text holds no secret."""


class ConnectionFailed(PatrolServerError):
    """No answer: name resolution, connection, TLS, time-out.

    ``sent`` is false where it is sure that no request has left.
    """

    def __init__(self, message: str, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class Refused(PatrolServerError):
    """The other side answered with an error.

    ``status`` is the HTTP status; ``problem`` the decoded body of the error, or an empty dictionary.
    """

    def __init__(self, message: str, status: int, problem: dict | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.problem = problem or {}


class Unreadable(PatrolServerError):
    """The answer is no JSON, too large, or lacks what the API promises."""


class TimedOut(PatrolServerError):
    """A wait with a bound reached it."""


class InvalidInput(PatrolServerError):
    """An option, a file or an environment variable holds what cannot be used."""


class Unwritten(InvalidInput):
    """A file that was asked for is not there: no folder, no right, no room."""


# A proxy gives these, too, after it has passed the request on; and a server that broke may have acted before.
ACTED_PERHAPS = (200, 408, 500, 502, 504)


def had_no_effect(error: PatrolServerError) -> bool:
    """Tell whether the request that ended so has surely changed nothing over there."""
    if isinstance(error, ConnectionFailed):
        return not error.sent
    if isinstance(error, Refused):
        return error.status not in ACTED_PERHAPS
    return isinstance(error, InvalidInput)
