"""Fuzz one target with atheris: ``python -m tests.faults.fuzz TARGET FOLDER [libFuzzer's flags]``."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

# The targets import what is fuzzed, so that atheris sees its branches.
with atheris.instrument_imports(include=["patrolserver_exporter", "yaml", "json", "email"]):
    from tests.faults.fuzz.corpus import lay_out, mutated_structure
    from tests.faults.fuzz.targets import TARGETS

_CHOICE = {"webhook": 1, "replies": 1, "policy": 1}
"""Bytes before the text."""


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Half of the time change the structure, which bytes alone hardly ever do; msgspec's C code shows no branches."""
    head = _CHOICE.get(target, 0)
    if seed % 2 and (changed := mutated_structure(data[head:], seed // 2)) is not None:
        return (data[:head] + changed)[:max_size]
    return bytes(atheris.Mutate(data, max_size))


target, folder = sys.argv[1], Path(sys.argv[2])
inputs, dictionary = lay_out(target, folder)
atheris.Setup(
    [sys.argv[0], str(inputs), f"-dict={dictionary}", f"-artifact_prefix={folder}/", *sys.argv[3:]],
    TARGETS[target],
    custom_mutator=mutate,
)
atheris.Fuzz()
