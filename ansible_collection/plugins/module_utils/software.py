# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Software lists as PatrolServer's buckets take them, made from a list of a playbook's own or from ``package_facts``."""

from __future__ import annotations

from ansible_collections.patrolserver.monitoring.plugins.module_utils.errors import InvalidInput

LINE = ("n", "v", "p", "l")


def from_list(software: list) -> list:
    """Return bucket lines of dictionaries with ``name``, ``version``, ``parent`` and ``location``."""
    lines = []
    for item in software:
        name = (item.get("name") or "").strip()
        if not name:
            raise InvalidInput("a software in the list has no name")
        lines.append(
            {
                "n": name,
                "v": item.get("version") or "",
                "p": item.get("parent") or "",
                "l": item.get("location") or "",
            }
        )
    return ordered(lines)


def from_package_facts(packages: dict) -> list:
    """Return bucket lines of ``ansible_facts.packages``: every installed version of every package, as the system's.

    An RPM's release belongs to its version, and so does an epoch other than 0.
    """
    lines = []
    for name, versions in packages.items():
        if not isinstance(versions, list):
            raise InvalidInput("package_facts: what is installed of {0!r} is no list".format(name))
        for package in versions:
            if not isinstance(package, dict):
                raise InvalidInput("package_facts: what is installed of {0!r} is no dictionary".format(name))
            lines.append({"n": str(package.get("name") or name), "v": _version(package), "p": "", "l": "/"})
    return ordered(lines)


def ordered(lines: list) -> list:
    """Return the lines once each, in a fixed order, so that equal software makes equal lists."""
    unique = {tuple(line[field] for field in LINE) for line in lines}
    return [dict(zip(LINE, values)) for values in sorted(unique)]


def readable(lines: list) -> list:
    """Return the lines as texts."""
    texts = []
    for line in lines:
        text = "{0} {1}".format(line["n"], line["v"] or "?")
        for field, word in (("p", "of"), ("l", "at")):
            if line[field]:
                text += " {0} {1}".format(word, line[field])
        texts.append(" ".join(text.split()))
    return texts


def _version(package: dict) -> str:
    version = str(package.get("version") or "")
    release = package.get("release")
    if version and release not in (None, "", "None"):
        version = "{0}-{1}".format(version, release)
    epoch = str(package.get("epoch") or "0")
    if version and epoch not in ("0", "None"):
        version = "{0}:{1}".format(epoch, version)
    return version
