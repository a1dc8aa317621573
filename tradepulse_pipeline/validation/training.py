"""What is asked of a training, in one value that survives JSON exactly."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Self, get_type_hints

from tradepulse_pipeline.backtest.settings import AccountSettings
from tradepulse_pipeline.errors import InvalidInputError, one_of
from tradepulse_pipeline.optimizers.settings import SearchSettings
from tradepulse_pipeline.strategies.decisions import SIDES, Side
from tradepulse_pipeline.validation.windows import WindowSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """Side, costs, search, windows, filters of a training. Together with candles and strategy they fix its result."""

    side: Side = "long"
    account: AccountSettings = field(default_factory=AccountSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    windows: WindowSettings = field(default_factory=WindowSettings)
    #: The optional filters of the strategy that are switched on, by name.
    filters: Mapping[str, float] = field(default_factory=dict)
    #: Combinations that the genetic search of the latest train window starts from. They were chosen on candles that lie
    #: after the train windows before it, whose searches must not know them.
    initial: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.side not in SIDES:
            raise one_of("side", self.side, SIDES)
        if self.initial and self.search.method != "genetic":
            raise InvalidInputError(
                f"initial: found {self.initial} with the method {self.search.method!r}; only a genetic search starts "
                "from given combinations."
            )

    def to_json_dict(self) -> dict[str, Any]:
        """Return the settings as nested dictionaries of JSON values."""
        from pydantic import TypeAdapter

        dumped: dict[str, Any] = TypeAdapter(TrainingSettings).dump_python(self, mode="json")
        return dumped

    @classmethod
    def from_json_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what ``to_json_dict`` wrote; fields that are left out have their defaults.

        Raises
        ------
        InvalidInputError
            If a field is unknown, or a value is of the wrong kind or out of range: the message names the field, the
            value and what is allowed.
        """
        from pydantic import TypeAdapter, ValidationError

        _refuse_unknown(cls, values, "settings")
        try:
            # As JSON text, because strict validation takes dictionaries for dataclasses from there alone.
            settings: Self = TypeAdapter(cls).validate_json(json.dumps(values), strict=True)
        except ValidationError as error:
            raise InvalidInputError("\n".join(_explained(problem) for problem in error.errors())) from None
        return settings

    def digest(self) -> str:
        """Return the SHA-256 of the settings, the same for equal settings.

        The number of workers and the limit on memory are left out: no result depends on them.
        """
        values = self.to_json_dict()
        for name in ("workers", "memory_limit_mib"):
            del values["search"][name]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _refuse_unknown(owner: type, values: Mapping[str, Any], where: str) -> None:
    types = get_type_hints(owner)
    for name, value in values.items():
        if name not in types:
            raise one_of("field", name, [f.name for f in fields(owner)], where=where)
        if is_dataclass(types[name]) and isinstance(value, Mapping):
            _refuse_unknown(types[name], value, name)


def _explained(problem: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "value_error":  # a dataclass's own check, which names field and value
        return f"{place}: {problem['ctx']['error']}" if place else str(problem["ctx"]["error"])
    return f"{place}: found {problem['input']!r}. {problem['msg']}."
