"""The command `settings`: every setting as it is in force, fit for a bug report."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping

from pydantic import SecretStr

from gateway.settings import Settings, SettingsError, load_settings, variable_name

STATUS_USAGE = 2


def add_settings_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `speech-gateway settings`."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run_settings(arguments: argparse.Namespace) -> int:
    """Print the settings as they are in force; return the exit status."""
    try:
        settings = describe(load_settings())
    except SettingsError as error:
        print(f"speech-gateway: {error}", file=sys.stderr)
        return STATUS_USAGE
    lines = [f"{name}={value}" for name, value in settings.items()]
    print(json.dumps(settings, indent=2) if arguments.json else "\n".join(lines))
    return 0


def as_text(value: object) -> str:
    """A setting's value as it would stand in the environment, secrets masked."""
    if isinstance(value, SecretStr):
        return "********"
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, Mapping):
        return ",".join(f"{alias}={voice}" for alias, voice in value.items())
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def describe(settings: Settings) -> dict[str, str]:
    """Variable name to value, secrets masked, in the order of the class."""
    return {
        variable_name(field): as_text(getattr(settings, field)) for field in Settings.model_fields
    }
