"""Options that several commands share. Each stands for one setting, whose description and default it shows.

Numbers are taken as text: the settings read them, as they do from the environment, and say what is wrong with one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final

import typer

from tradepulse_pipeline.market.series import TIMEFRAMES
from tradepulse_pipeline.optimizers.settings import DEFAULT_BUDGETS, METHODS, OBJECTIVES, SELECTIONS
from tradepulse_pipeline.settings import SOURCES, Settings
from tradepulse_pipeline.strategies.decisions import SIDES
from tradepulse_pipeline.validation.windows import SCHEMES

WHAT: Final = "What is trained"
SEARCH: Final = "Search"
WINDOWS: Final = "Windows"
ACCOUNT: Final = "Account and costs"
OUTPUT: Final = "Output"
WHERE: Final = "Where"

#: The option of each setting, without dashes, by the setting's name spelled as an option: ``fee-rate`` is ``fee``.
_OPTION_OF: Final[dict[str, str]] = {}


def setting(name: str, option: str, panel: str, metavar: str | None = None, text: str = "", note: str = "") -> Any:
    """Return the option of a setting; left out, it is None and the setting comes from elsewhere.

    ``text`` takes the place of the setting's description, ``note`` follows it.
    """
    _OPTION_OF[name.replace("_", "-")] = option.split("/")[0].removeprefix("--")
    field = Settings.model_fields[name]
    default = ", ".join(field.default) if isinstance(field.default, tuple) else field.default
    if isinstance(default, float):
        default = f"{default:g}"
    has_default = default not in (None, "", {}) and not isinstance(default, bool)
    parts = (text or field.description, note, f"[dim]Default: {default}.[/dim]" if has_default else "")
    return typer.Option(
        option,
        help=" ".join(part for part in parts if part),
        metavar=metavar,
        rich_help_panel=panel,
        show_default=False,
    )


def normalized(option: str) -> str:
    """Return the spelling that help shows: a setting's own name works as an option, with dashes or underscores.

    Examples
    --------
    >>> normalized("fee_rate"), normalized("pairs"), normalized("seed")
    ('fee', 'pair', 'seed')
    """
    spelled = option.replace("_", "-")
    return _OPTION_OF.get(spelled, spelled)


def given(ctx: typer.Context) -> dict[str, Any]:
    """Return the options that a command was given and that stand for settings, by the settings' names."""
    return {
        name: value
        for name, value in ctx.params.items()
        if name in Settings.model_fields and value is not None and value != ()
    }


def _one_of(names: Iterable[str]) -> str:
    return f"One of {', '.join(names)}."


_SEVERAL: Final = "Repeat it or use commas for several."
_BUDGETS: Final = ", ".join(f"{budget} ({method})" for method, budget in DEFAULT_BUDGETS.items())

Strategies = Annotated[list[str] | None, setting("strategies", "--strategy", WHAT, "NAME", note=_SEVERAL)]
Exchanges = Annotated[list[str] | None, setting("exchanges", "--exchange", WHAT, "NAME", note=_SEVERAL)]
Pairs = Annotated[list[str] | None, setting("pairs", "--pair", WHAT, "BASE/QUOTE", note=_SEVERAL)]
Timeframes = Annotated[
    list[str] | None,
    setting("timeframes", "--timeframe", WHAT, "SPAN", note=f"One or several of {', '.join(TIMEFRAMES)}."),
]
HistoryDays = Annotated[str | None, setting("history_days", "--history", WHAT, "DAYS")]
Source = Annotated[
    str | None,
    setting(
        "source",
        "--source",
        WHAT,
        "NAME",
        note=f"{_one_of(SOURCES)} auto fetches what is missing and makes do with stored candles.",
    ),
]
SimulatedEdge = Annotated[str | None, setting("simulated_edge", "--simulated-edge", WHAT, "NUMBER")]
TradedSide = Annotated[str | None, setting("side", "--side", ACCOUNT, "SIDE", note=_one_of(SIDES))]

Method = Annotated[str | None, setting("method", "--method", SEARCH, "NAME", note=_one_of(METHODS))]
Budget = Annotated[
    str | None,
    setting("budget", "--budget", SEARCH, "TRIALS", text=f"Trials of a search. [dim]Default: {_BUDGETS}.[/dim]"),
]
Objective = Annotated[str | None, setting("objective", "--objective", SEARCH, "NAME", note=_one_of(OBJECTIVES))]
Selection = Annotated[
    str | None,
    setting("selection", "--selection", SEARCH, "NAME", note=f"{_one_of(SELECTIONS)} plateau takes a grid search."),
]
FurtherObjectives = Annotated[
    list[str] | None,
    setting(
        "further_objectives",
        "--further-objective",
        SEARCH,
        "NAME",
        note=f"One or several of {', '.join(OBJECTIVES)}. What is stored is the best by the objective alone.",
    ),
]
MinimumTrades = Annotated[str | None, setting("minimum_trades", "--minimum-trades", SEARCH, "TRADES")]
MaxCombinations = Annotated[str | None, setting("max_combinations", "--max-combinations", SEARCH, "TRIALS")]
Filters = Annotated[list[str] | None, setting("filters", "--filter", SEARCH, "NAME=VALUE", note=_SEVERAL)]
MaxRuntime = Annotated[str | None, setting("max_runtime_seconds", "--max-runtime", SEARCH, "SECONDS")]
Seed = Annotated[str | None, setting("seed", "--seed", SEARCH, "INTEGER")]
Workers = Annotated[str | None, setting("workers", "--workers", SEARCH, "THREADS")]
MemoryLimit = Annotated[str | None, setting("memory_limit_mib", "--memory-limit", SEARCH, "MEBIBYTES")]

Scheme = Annotated[str | None, setting("scheme", "--scheme", WINDOWS, "NAME", note=_one_of(SCHEMES))]
TrainDays = Annotated[str | None, setting("train_days", "--train-days", WINDOWS, "DAYS")]
TestDays = Annotated[str | None, setting("test_days", "--test-days", WINDOWS, "DAYS")]
GapDays = Annotated[str | None, setting("gap_days", "--gap-days", WINDOWS, "DAYS")]
StepDays = Annotated[str | None, setting("step_days", "--step-days", WINDOWS, "DAYS")]
TrainRatio = Annotated[str | None, setting("train_ratio", "--train-ratio", WINDOWS, "FRACTION")]
Reoptimise = Annotated[
    bool | None,
    setting(
        "reoptimise",
        "--reoptimise/--fixed",
        WINDOWS,
        text="Search every train window anew, or take one parameter set for all windows, which is not out-of-sample. "
        "[dim]Default: --reoptimise.[/dim]",
    ),
]

FeeRate = Annotated[str | None, setting("fee_rate", "--fee", ACCOUNT, "FRACTION", note="0.001 is 0.1 %.")]
Slippage = Annotated[str | None, setting("slippage", "--slippage", ACCOUNT, "FRACTION")]
Capital = Annotated[str | None, setting("initial_capital", "--capital", ACCOUNT, "AMOUNT")]
Risk = Annotated[str | None, setting("risk_fraction", "--risk", ACCOUNT, "FRACTION", note="0.01 is 1 %.")]
Leverage = Annotated[str | None, setting("max_leverage", "--leverage", ACCOUNT, "MULTIPLE")]
MaxHolding = Annotated[str | None, setting("max_holding_bars", "--max-holding", ACCOUNT, "BARS")]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead.", rich_help_panel=OUTPUT)]
