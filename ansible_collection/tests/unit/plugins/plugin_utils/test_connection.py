# Copyright: (c) 2026, The patrolserver-exporter founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One way to connect: modules and plugins have the same options, variables and names in the environment."""

from __future__ import annotations

import pytest
import yaml

from ansible_collections.patrolserver.monitoring.plugins.doc_fragments.api import ModuleDocFragment as ApiWords
from ansible_collections.patrolserver.monitoring.plugins.doc_fragments.exporter import ModuleDocFragment as ExporterWords
from ansible_collections.patrolserver.monitoring.plugins.doc_fragments.transport import ModuleDocFragment as TransportWords
from ansible_collections.patrolserver.monitoring.plugins.module_utils.arguments import (
    API_VARIABLES,
    EXPORTER_VARIABLES,
    api_options,
    exporter_options,
)


def options(text):
    """Return the options of a fragment."""
    return yaml.safe_load(text)["options"]


def shape(option):
    """Return what an option takes, whatever its words are."""
    return option["type"], option.get("default"), option.get("required", False)


def test_plugins_have_the_options_of_modules():
    """With the same types and defaults."""
    modules = {**options(ExporterWords.DOCUMENTATION), **options(TransportWords.DOCUMENTATION)}
    plugins = options(ExporterWords.PLUGIN)
    assert {name: shape(option) for name, option in plugins.items()} == {
        name: shape(option) for name, option in modules.items()
    }


def test_plugins_take_the_variables_and_the_environment_of_modules():
    """The names that both know are the last ones, which win over older ones."""
    plugins = options(ExporterWords.PLUGIN)
    assert {name: option["vars"][-1]["name"] for name, option in plugins.items()} == EXPORTER_VARIABLES
    assert {name: option["env"][-1]["name"].lower() for name, option in plugins.items()} == EXPORTER_VARIABLES


@pytest.mark.parametrize(
    ("spec", "words", "variables"),
    [(exporter_options(), ExporterWords, EXPORTER_VARIABLES), (api_options(), ApiWords, API_VARIABLES)],
    ids=["exporter", "api"],
)
def test_modules_take_what_their_words_say(spec, words, variables):
    """Each option, and for each the environment's name."""
    told = {**options(words.DOCUMENTATION), **options(TransportWords.DOCUMENTATION)}
    assert {name: shape(option) for name, option in spec.items()} == {name: shape(option) for name, option in told.items()}
    assert {name: option["fallback"][1][0].lower() for name, option in spec.items()} == variables
