# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host that an event is about, told so that Ansible takes it for a name, and never for a group or a pattern."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import re
import time
from typing import Any

PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
GROUPS_OF_ALL = ("all", "ungrouped")
LIKE_A_GROUP = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
NO_HOST = "~(?!)"
KNOWN_FOR = 60.0
READ_TIMEOUT = 60.0

log = logging.getLogger("patrolserver.monitoring.issues")


def host_pattern(name: Any) -> str:
    """Return a pattern of Ansible's that matches the host of this name: a plain name stands for itself."""
    if not isinstance(name, str) or not name or name in GROUPS_OF_ALL:
        return NO_HOST
    if PLAIN_NAME.fullmatch(name):
        return name
    # Each other character by its number: commas and colons would end the pattern.
    escaped = "".join(
        one if one.isascii() and (one.isalnum() or one in "_-") else "\\U{0:08x}".format(ord(one)) for one in name
    )
    return "~^{0}\\Z".format(escaped)


class Inventory:
    """The groups and hosts of the inventory that playbooks get, as Ansible reads them; looked up again after a minute.

    Every pattern of Ansible's that matches a host matches a group of the same name as well, and then means its hosts. So nobody
    can tell the two apart but by looking.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._known: tuple[set[str], set[str]] | None = None
        self._read_at: float | None = None

    async def pattern_for(self, name: Any) -> str:
        """Return the pattern for the host of this name; one that matches nothing where the name may be a group's."""
        pattern = host_pattern(name)
        if pattern == NO_HOST:
            return NO_HOST
        known = await self._groups_and_hosts()
        if known is None:
            if not LIKE_A_GROUP.fullmatch(name):
                return pattern
            log.warning(
                "Whether %s is a group of the inventory is not known, so that its event is limited to no host; set inventory", name
            )
            return NO_HOST
        groups, hosts = known
        # A host's plain name is looked up among the hosts first, and a pattern among the groups.
        if name in groups and not (name in hosts and pattern == name):
            log.warning("%s is a group of the inventory and no host, so that its event is limited to no host", name)
            return NO_HOST
        return pattern

    async def _groups_and_hosts(self) -> tuple[set[str], set[str]] | None:
        if self._path is None:
            return None
        if self._read_at is None or time.monotonic() - self._read_at > KNOWN_FOR:
            self._known = await self._read(self._path)
            self._read_at = time.monotonic()
        return self._known

    async def _read(self, path: str) -> tuple[set[str], set[str]] | None:
        try:
            process = await asyncio.create_subprocess_exec(
                "ansible-inventory",
                "--inventory",
                path,
                "--list",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={**os.environ, "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true"},
            )
        except OSError as error:
            log.warning("The inventory %s cannot be read: ansible-inventory: %s", path, error.strerror)
            return None
        try:
            output, _nothing = await asyncio.wait_for(process.communicate(), READ_TIMEOUT)
            return _known_of(json.loads(output))
        except (asyncio.TimeoutError, ValueError, KeyError, TypeError, AttributeError):
            log.warning("The inventory %s cannot be read by ansible-inventory", path)
            return None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _known_of(listed: dict[str, Any]) -> tuple[set[str], set[str]]:
    # A host that is called like a group is listed as one of that name; but what is not grouped has no groups in it.
    hosts = {*listed["_meta"]["hostvars"], *listed.get("ungrouped", {}).get("children", ())}
    groups = {*listed, *GROUPS_OF_ALL} - {"_meta"}
    for name, group in listed.items():
        if name != "_meta":
            hosts.update(group.get("hosts") or [])
            groups.update(group.get("children") or [])
    return groups, hosts


def inventory_of_command_line(arguments: list[str]) -> str | None:
    """Return the inventory that ansible-rulebook was started with; nothing if it was another program, or there is none."""
    program = arguments[0] if arguments else ""
    if not {"ansible-rulebook", "ansible_rulebook"} & {os.path.basename(program), os.path.basename(os.path.dirname(program))}:
        return None
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("-i", "--inventory")
    try:
        return parser.parse_known_args(arguments[1:])[0].inventory
    except argparse.ArgumentError:
        return None
