"""The promise on random input: each parser takes it or refuses it in its own way, and never fails otherwise."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.faults.fuzz.corpus import kept, seeds
from tests.faults.fuzz.targets import TARGETS
from tests.harness.promises import measured
from tests.harness.sizes import FULL, LONGEST, all_or_few

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

pytestmark = pytest.mark.promise("bad-input")

ROOT = Path(__file__).parents[2]
SECONDS = 600 if FULL else 3
TRIED = all_or_few([*TARGETS], 3)
"""Each is a process that first finds the branches of all that it imports."""


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_found_once_stays_mended(target: str) -> None:
    """Each input that earlier runs kept is taken or refused; nothing else comes of it."""
    inputs = [*seeds(target), *kept(target)]
    assert len(inputs) > 20, "the corpus is missing"
    for data in inputs:
        TARGETS[target](data)


def fuzz(target: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """One target for its time, in a process of its own."""
    limits = (f"-max_total_time={SECONDS}", "-timeout=20", "-rss_limit_mb=2048", "-max_len=8192")
    command = [sys.executable, "-m", "tests.faults.fuzz", target, str(folder), *limits]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """All targets, as many at a time as there are processors: each uses one."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris has no wheel for this machine")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {target: pool.submit(fuzz, target, tmp_path_factory.mktemp(target)) for target in TRIED}


@pytest.mark.timeout(LONGEST)
@pytest.mark.parametrize("target", TRIED)
def test_random_input_finds_nothing(
    target: str, runs: dict[str, Future[subprocess.CompletedProcess[str]]], request: pytest.FixtureRequest
) -> None:
    """Input that atheris makes up, led by the branches that it reaches."""
    ended = runs[target].result()
    assert ended.returncode == 0, ended.stderr[-4000:]
    (done,) = re.findall(r"^Done (\d+) runs", ended.stderr, re.MULTILINE)
    measured(request.node, sent=int(done), load="random bodies, replies, files and policies")
