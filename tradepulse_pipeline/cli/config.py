"""``tradepulse config``: every setting, its value, and where the value came from."""

from __future__ import annotations

import os
from dataclasses import asdict, is_dataclass
from typing import Any, Final

from pydantic import SecretStr

from tradepulse_pipeline.cli.console import print_json, stdout, table, warn
from tradepulse_pipeline.cli.options import AsJson
from tradepulse_pipeline.errors import one_of
from tradepulse_pipeline.settings import (
    ENV_PREFIX,
    FROM_ENVIRONMENT_ONLY,
    OTHER_VARIABLES,
    SETTINGS_FILE,
    Settings,
    load_settings,
    variable,
)

#: A narrower page has no room for what the settings mean; the help of 'tradepulse train' tells it too.
_WIDTH_WITH_MEANING: Final = 100


def config(as_json: AsJson = False) -> None:
    """Show every setting, its value and where it came from.

    Where a setting comes from, the first that has it: an option of a command, the environment (TRADEPULSE_ and the
    name in capitals), tradepulse.toml in the project folder, the default.

    [dim]$[/dim] TRADEPULSE_FEE_RATE=0.00075 tradepulse config
    """
    settings = load_settings()
    settings.training()
    settings.history()
    names = Settings.model_fields
    known = {variable(name) for name in names} | set(OTHER_VARIABLES)
    for found in sorted(name for name in os.environ if name.startswith(ENV_PREFIX) and name not in known):
        warn(f"{one_of('variable', found, known, where='the environment')} It changes nothing.".split(" Allowed:")[0])
    if as_json:
        print_json({name: {"value": _value(settings, name), "origin": settings.origin(name)} for name in names})
        return
    console = stdout()
    columns = ["Setting", "Value", "From", *(["Meaning"] if console.width >= _WIDTH_WITH_MEANING else [])]
    rows = [
        [name, _shown(_value(settings, name)), settings.origin(name), f.description or ""][: len(columns)]
        for name, f in names.items()
    ]
    console.print(f"Project {settings.project_dir}; settings may stand in {SETTINGS_FILE} there.", markup=False)
    console.print(table(columns, rows, left=len(columns), folding=("Value", "Meaning")))


def _value(settings: Settings, name: str) -> Any:
    value = getattr(settings, name)
    if name in FROM_ENVIRONMENT_ONLY:
        return value and "***"
    if isinstance(value, SecretStr):
        from tradepulse_pipeline.database.connection import redacted

        return redacted(value.get_secret_value())
    if isinstance(value, tuple):
        return [str(part) for part in value]
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value if value is None or isinstance(value, (int, float, dict)) else str(value)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        value = [f"{name}={_entry(entry)}" for name, entry in value.items()]
    if isinstance(value, list):
        return ", ".join(value) or "–"
    return "–" if value is None else str(value)


def _entry(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "+".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
