from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Callable

# Two busy cores make single examples slow now and then; what is too slow is for the benchmarks to find.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")


@pytest.fixture(scope="session")
def require_program() -> Callable[[str], str]:
    """Path of a program that a test starts; without it the test is skipped, but fails where CI=true says it must be."""

    def path_of(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{name} is not installed")
        return path

    return path_of
