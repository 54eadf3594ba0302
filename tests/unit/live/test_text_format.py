from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

from patrolserver_exporter.live.encoding import encode, negotiate

PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "text/html",
        "text/plain",
        "text/plain; version=0.0.4",
        "text/plain; version=1.0.0",
        "text/plain; version=1.0.0; escaping=allow-utf-8",
        "application/openmetrics-text",
        "application/openmetrics-text; version=0.0.1",
        "application/openmetrics-text; version=0.0.1, application/openmetrics-text; version=1.0.0",
        "application/openmetrics-text; version=2.0.0; escaping=underscores",
        PROMETHEUS_2,
        PROMETHEUS_3,
    ],
)
def test_negotiates_as_the_client_library(accept: str) -> None:
    """The client library's choice is ours, with its Content-Type to the letter."""
    assert negotiate(accept).content_type == choose_encoder(accept)[1]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("application/openmetrics-text;q=0", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;version=1.0.0;q=0, text/plain", "text/plain; version=0.0.4"),
        (
            "text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1",
            "text/plain; version=0.0.4",
        ),
        ("*/*, application/openmetrics-text;q=0.5", "text/plain; version=0.0.4"),
        ("text/plain;version=0.0.4;q=0.1, text/plain;version=1.0.0;q=0.2", "text/plain; version=1.0.0"),
        ("text/plain;q=0.4, application/openmetrics-text;q=0.5", "application/openmetrics-text"),
        ("application/json, application/openmetrics-text;q=0.1", "application/openmetrics-text"),
        ("application/openmetrics-text;version=0.0.1, application/openmetrics-text;q=0.1", "application/openmetrics"),
        ("application/openmetrics-text;q=high, text/plain;q=0.1", "text/plain; version=0.0.4"),
        ("*/*;q=0", "text/plain; version=0.0.4"),
        ("Application/OpenMetrics-Text; Version=1.0.0", "application/openmetrics-text"),
    ],
)
def test_weights_decide(accept: str, expected: str) -> None:
    """What is refused is not sent, and what is liked less only when nothing better is known; else plain text."""
    assert negotiate(accept).content_type.startswith(expected)


def test_openmetrics_is_told_by_its_type() -> None:
    """What is answered in OpenMetrics is known as such."""
    assert negotiate(PROMETHEUS_3).openmetrics
    assert not negotiate("text/plain; version=1.0.0").openmetrics
    assert not negotiate(None).openmetrics


@pytest.mark.parametrize("escaping", ["dots", "values", "DOTS"])
def test_other_escapings_become_underscores(escaping: str) -> None:
    """Names that need no escaping are never mangled, and the answer says which escaping it has."""
    chosen = negotiate(f"application/openmetrics-text; version=1.0.0; escaping={escaping}")
    assert chosen.content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"
    registry = CollectorRegistry()
    Gauge("a_b", "x", registry=registry)
    assert b"\na_b 0.0\n" in encode(registry.collect(), chosen, None)


@pytest.mark.parametrize("version", ["new", "1.x", "x.0.0"])
def test_unreadable_versions_get_plain_text(version: str) -> None:
    """A version that is not a number gets an answer; the client library would raise."""
    assert negotiate(f"application/openmetrics-text; version={version}").content_type.startswith(("text/plain", "app"))


def test_created_series_are_left_out() -> None:
    """No ``_created`` series, unless a gauge is really called so."""
    registry = CollectorRegistry()
    Counter("a", "x", registry=registry).inc()
    Histogram("b", "x", registry=registry).observe(1)
    Gauge("c_created", "x", registry=registry)
    for accept in ("", "application/openmetrics-text"):
        text = encode(registry.collect(), negotiate(accept), None).decode()
        assert [line for line in text.splitlines() if "_created" in line and not line.startswith("#")] == [
            "c_created 0.0"
        ]
        assert "# EOF" not in text


@pytest.mark.parametrize("names", [["a_total"], ["a"], ["b_bucket", "b_sum"], ["b"], ["g", "a_total"], ["nothing"]])
def test_names_restrict_as_the_client_library(names: list[str]) -> None:
    """Restricting by name gives the samples that the library's restricted registry gives."""
    registry = CollectorRegistry()
    Counter("a", "x", registry=registry).inc()
    Histogram("b", "x", registry=registry).observe(1)
    Gauge("g", "x", registry=registry)
    chosen = negotiate(None)
    library = chosen.encode(registry.restricted_registry(names)).decode()
    ours = encode(registry.collect(), chosen, names).decode()
    assert sorted(ours.splitlines()) == sorted(line for line in library.splitlines() if "_created" not in line)
