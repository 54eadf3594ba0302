"""The service's flags: what is wrong ends with 2 and says what to write, before anything is opened."""

from __future__ import annotations

import pytest

from patrolserver_exporter.commands import demo
from patrolserver_exporter.commands.serve import BAD_CONFIG, main


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--web.telemetry-path=metrics", "has to be a path like /metrics"),
        ("--web.telemetry-path=", "has to be a path like /metrics"),
        ("--web.telemetry-path=/a b", "has to be a path like /metrics"),
        ("--web.telemetry-path=/metrics?x", "has to be a path like /metrics"),
        ("--web.telemetry-path=/", "may not be / or below"),
        ("--web.telemetry-path=/-/healthy", "may not be / or below"),
        ("--web.telemetry-path=/api/v1/servers", "may not be / or below"),
        ("--web.telemetry-path=/webhook/metrics", "may not be / or below"),
        ("--web.telemetry-path=/servers/1", "may not be / or below"),
        ("--web.external-url=exporter.example.org", "has to be like https://exporter.example.org"),
        ("--web.external-url=http://", "has to be like https://exporter.example.org"),
        ("--web.external-url=http://[::1", "has to be like https://exporter.example.org"),
        ("--web.external-url=http://host:99999/", "has to be like https://exporter.example.org"),
        ("--web.external-url=http://user:word@host/", "has to be like https://exporter.example.org"),
        ("--web.external-url=http://host/?a=b", "has to be like https://exporter.example.org"),
        ("--web.route-prefix=/a b", "has to be a path like /exporter"),
        ("--web.route-prefix=/a//b", "has to be a path like /exporter"),
        ("--web.max-requests=-1", "--web.max-requests: needs a whole number, 0 or more"),
        ("--web.listen-address=nowhere", "write it as host:port or :port"),
        ("--webhook.listen-address=::1:1", "put an IPv6 address in brackets"),
    ],
)
def test_a_flag_that_leads_nowhere_is_refused(flag: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """None is taken for something else: metrics below a path that needs no password would be open to everybody."""
    with pytest.raises(SystemExit) as ended:
        main(["--config.check", flag])
    assert ended.value.code == BAD_CONFIG
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [
        ["--web.telemetry-path=/metrics/"],
        ["--web.telemetry-path=/private/prometheus-metrics"],
        ["--web.external-url=https://[2001:db8::1]:8443/ps/"],
        ["--web.external-url=https://example.org", "--web.route-prefix=/"],
        ["--web.route-prefix=ps/exporter/"],
        ["--web.max-requests=0"],
    ],
)
def test_a_flag_that_makes_sense_is_taken(
    flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With and without a slash at the end, and with an address in brackets."""
    monkeypatch.setenv("PATROLSERVER_KEY", "key")
    monkeypatch.setenv("PATROLSERVER_SECRET", "secret")
    assert main(["--config.check", *flags]) == 0
    assert "sound" in capsys.readouterr().out


def test_the_demo_takes_no_address_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    """It ends with 2 before the simulator starts."""
    with pytest.raises(SystemExit) as ended:
        demo.main(["--web.listen-address=nowhere"])
    assert ended.value.code == BAD_CONFIG
    assert "write it as host:port or :port" in capsys.readouterr().err
