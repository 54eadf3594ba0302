from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from patrolserver_exporter.simulator import SimulatorOptions
from patrolserver_exporter.simulator.story import StoryTeller, play
from patrolserver_exporter.simulator.world import World

if TYPE_CHECKING:
    from patrolserver_exporter.simulator.webhooks import Event, Webhook


class Stage:
    """A world whose clock runs with the story."""

    def __init__(self, **options: Any) -> None:
        self.time = 0.0
        self.told: list[tuple[float, str, Any]] = []
        self.world = World(SimulatorOptions(**options), clock=lambda: self.time, deliver=self._deliver)

    def _deliver(self, _webhook: Webhook, event: Event) -> None:
        self.told.append((self.time, event.identifier.removeprefix("webhook."), event.data))

    def run(self, *, beats: int) -> list[str]:
        """Play so many beats; their lines."""
        lines = []
        for beat in islice(play(self.world), beats):
            lines.append(beat.line)
            self.time += beat.pause
        return lines


def test_the_first_minute_has_a_scan_a_critical_issue_and_its_fix() -> None:
    """What the demo shows within a minute: scan, exploit with risk 9.8, and a scan after which it is gone."""
    stage = Stage()
    lines = stage.run(beats=8)
    assert stage.time <= 60
    assert [identifier for _, identifier, _ in stage.told] == [
        "scan_started",
        "scan_finished",
        "new_server_issues",
        "scan_started",
        "scan_finished",
    ]
    issue = stage.told[2][2]
    server = stage.world.server(stage.world.demo, issue["server_id"])
    assert "exploitable, risk 9.8" in next(line for line in lines if line.startswith("critical"))
    named = issue["new_issues"][0]["software"]["software"]["canonical_name"]
    fixed = next(one for one in stage.world.installed(server) if one.software.canonical_name == named)
    assert not fixed.software.broken
    assert lines[-1].startswith("fixed:")


def test_the_story_goes_on_and_varies() -> None:
    """Issues come and go without end, and the fleet does not fall apart."""
    stage = Stage()
    lines = stage.run(beats=300)
    assert len(set(lines)) > 50
    identifiers = {identifier for _, identifier, _ in stage.told}
    assert identifiers == {"scan_started", "scan_finished", "new_server_issues", "test"}
    broken = sum(
        one.software.broken for server in stage.world.servers(stage.world.demo) for one in stage.world.installed(server)
    )
    assert broken < 25 * 12 / 3


def test_the_same_seed_tells_the_same_story() -> None:
    """To the last line."""
    assert Stage(seed=5).run(beats=80) == Stage(seed=5).run(beats=80)


def test_a_story_without_servers_ends() -> None:
    """There is nothing to tell."""
    assert Stage(servers=0).run(beats=10) == []


def test_a_server_without_software_is_no_obstacle() -> None:
    """The story goes on with what there is."""
    assert len(Stage(servers=1, software=0).run(beats=30)) == 30


def test_the_teller_plays_in_the_background_and_stops() -> None:
    """Each line is printed once, and listeners get it, too; stopping ends it at once."""
    heard: list[str] = []
    teller = StoryTeller(World(SimulatorOptions()), on_line=heard.append)
    teller.start(speed=1000.0)
    while len(heard) < 12:
        assert teller.playing
    teller.stop()
    assert not teller.playing
    assert teller.lines()[:12] == heard[:12]
