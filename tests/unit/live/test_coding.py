from __future__ import annotations

import pytest

from patrolserver_exporter.live.encoding import accepts_gzip


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, False),
        ("", False),
        ("gzip", True),
        ("GZip", True),
        ("x-gzip", True),
        ("deflate, gzip;q=0.5, br", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("gzip;q=0, *", False),
        ("*", True),
        ("*;q=0", False),
        ("identity", False),
        ("identity;q=1, gzip;q=0.5", False),
        ("identity;q=0.5, gzip;q=1.0", True),
        ("identity, gzip", True),
        ("gzip;q=nan", False),
        ("gzip;q=high", False),
        ("gzip;q=2", False),
        ("gzip;level=9", True),
        ("br, zstd", False),
        (",;,", False),
    ],
)
def test_weights_decide(header: str | None, expected: bool) -> None:  # noqa: FBT001  # a parameter of the table
    """Gzip is sent to who accepts it and does not like plain text better."""
    assert accepts_gzip(header) is expected
