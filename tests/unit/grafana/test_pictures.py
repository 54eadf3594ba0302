from __future__ import annotations

import itertools
import json

import pytest
from grafana.dashboards.files import FOLDER
from grafana.pictures.__main__ import DASHBOARDS, PICTURES
from grafana.pictures.age import FILE, digest
from grafana.pictures.backfill import stamped
from grafana.pictures.week import Week

END = 1_781_514_000


def test_the_pictures_show_the_dashboards_as_they_are() -> None:
    """Who changes how a dashboard looks redraws it: run ``make pictures``."""
    drawn = json.loads((PICTURES / FILE).read_text())
    now = {name: digest(json.loads((FOLDER / f"patrolserver-{name}.json").read_text())) for name in DASHBOARDS}
    assert drawn == now
    there = {path.name for path in PICTURES.glob("*.png") if not path.name.startswith("page-")}
    assert there == {f"{name}-{theme}.png" for name in DASHBOARDS for theme in ("light", "dark")}


def test_a_description_makes_no_picture_old() -> None:
    """It is not in the picture; a title, a query or a place is."""
    dashboard = {"panels": [{"title": "CPU", "description": "x", "targets": [{"expr": "up"}], "gridPos": {"x": 0}}]}
    panel = dashboard["panels"][0]
    before = digest(dashboard)
    panel["description"] = "y"
    assert digest(dashboard) == before
    for key, value in (("title", "Load"), ("targets", [{"expr": "down"}]), ("gridPos", {"x": 8})):
        assert digest({"panels": [{**panel, key: value}]}) != before


def test_a_sample_gets_the_targets_labels_and_the_time() -> None:
    """Comments go, and a series without labels gets its first."""
    text = '# HELP a b\n# TYPE a gauge\na{x="1"} 2.0\nb 3.0\n'
    target = 'job="patrolserver",instance="exporter:10058"'
    assert stamped(text, 60) == f'a{{{target},x="1"}} 2.0 60\nb{{{target}}} 3.0 60\n'


def test_what_is_no_sample_is_refused() -> None:
    """A line that would vanish silently is an error instead."""
    with pytest.raises(ValueError, match="not a sample"):
        stamped("a b c\n", 60)


def test_the_week_is_the_same_on_every_run() -> None:
    """Pictures change only when dashboards or exporter do."""
    one, other = (list(itertools.islice(Week(END).play(), 40)) for _ in range(2))
    assert one == other
