# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that bring waivers."""

from __future__ import annotations


class ModuleDocFragment:
    """Shared words on what is accepted."""

    DOCUMENTATION = r"""
options:
  waivers:
    description: Issues that are accepted, for a reason and up to a date.
    type: list
    elements: dict
    suboptions:
      server:
        description: A glob on the server's name, as one text.
        type: raw
        required: true
      software:
        description: A glob on the software's canonical name.
        type: raw
        required: true
      kind:
        description: The kind of issue. Unset means any.
        type: str
        choices: [unsupported, outdated, exploitable, reported]
      exploit:
        description: A glob on an exploit's id or CVE. Unset means all exploits of the software.
        type: raw
      max_severity:
        description: The severity up to which it holds; what becomes worse is not covered. Unset means any.
        type: str
        choices: [critical, high, medium, low]
      until:
        description: The last day on which the waiver holds, in UTC, like V(2027-01-31).
        type: raw
        required: true
      reason:
        description: Why the issue is accepted.
        type: raw
        required: true
  waivers_file:
    description:
      - A YAML or JSON file with a list of waivers, or with a dictionary that has it under C(waivers).
      - It adds to O(waivers). A waiver without reason or date fails the task, and so does a date that does not exist.
      - YAML needs PyYAML where the task runs.
    type: path
"""
