"""The two files of a service, the configuration and the web configuration, and what is wrong with both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patrolserver_exporter.config.load import load_config
from patrolserver_exporter.config.problem import ConfigError, Mistake
from patrolserver_exporter.web.http.tls import build_context
from patrolserver_exporter.web.http.web_config import WebConfig, load_web_config

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from patrolserver_exporter.config.load import Loaded


def load_files(
    config_file: Path | None, web_config_file: Path | None, environ: Mapping[str, str]
) -> tuple[Loaded, WebConfig]:
    """Read both; raises `ConfigError` with the mistakes of both."""
    loaded, web_config, mistakes = None, WebConfig(), list[Mistake]()
    try:
        loaded = load_config(config_file, environ)
    except ConfigError as error:
        mistakes += error.errors
    try:
        if web_config_file is not None:
            web_config = load_web_config(web_config_file)
        if web_config.tls_server_config is not None:
            build_context(web_config.tls_server_config)
    except ConfigError as error:
        mistakes += error.errors
    if loaded is None or mistakes:
        raise ConfigError(tuple(mistakes))
    return loaded, web_config
