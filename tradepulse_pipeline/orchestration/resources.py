"""What assets are given: the settings of a training, the database, and the store of Parquet files."""

from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import dagster as dg
from dagster._config import EvaluateValueResult
from dagster._config.pythonic_config.resource import ConfigurableResourceFactoryResourceDefinition
from dagster._utils.cached_method import cached_method
from pydantic import Field, create_model

from tradepulse_pipeline.backtest.settings import AccountSettings
from tradepulse_pipeline.database.connection import Database
from tradepulse_pipeline.database.migrations import migrate
from tradepulse_pipeline.database.server import database_url
from tradepulse_pipeline.errors import InvalidInputError, one_of
from tradepulse_pipeline.market.history import CandleOrigin, HistorySettings
from tradepulse_pipeline.market.sources.simulated import SimulatedMarketSettings
from tradepulse_pipeline.optimizers.settings import (
    DEFAULT_BUDGETS,
    OBJECTIVES,
    Method,
    Objective,
    SearchSettings,
    Selection,
)
from tradepulse_pipeline.orchestration.artifacts import ArtifactStore
from tradepulse_pipeline.orchestration.names import branch_name
from tradepulse_pipeline.settings import load_settings
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.strategies.decisions import Side
from tradepulse_pipeline.strategies.registry import get_strategy, strategy_names
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.windows import Scheme, WindowSettings

_ACCOUNT: Final = AccountSettings()
_HISTORY: Final = HistorySettings()
_SEARCH: Final = SearchSettings()
_WINDOWS: Final = WindowSettings()

#: Settings whose None is 0 here, and an empty text for times: the Launchpad shows no default that is null.
_ZERO_IS_NONE: Final = ("budget", "step_days")


class _CheckedSettings(ConfigurableResourceFactoryResourceDefinition):
    """The definition of ``SettingsResource``, which refuses values when Dagster resolves the configuration of a run.

    It does so to plan a run, before there is one: a wrong value is refused when *Launch run* is pressed. Bounds of
    pydantic would be looked at when the run starts: without a word about the field on its page, and retried in vain.
    """

    def apply_config_mapping(self, config: Any) -> EvaluateValueResult[Any]:
        """Return the configuration as it is.

        Raises
        ------
        InvalidInputError
            If a value is out of range or contradicts another; the web UI shows the sentence.
        """
        self.configurable_resource_cls(**config.get("config", {})).check()
        return super().apply_config_mapping(config)


class SettingsResource(dg.ConfigurableResource[None]):
    """What is asked of a training. Rates and fractions are fractions: 0.01 is one per cent."""

    #: Those that the settings are for; none: any.
    strategies: ClassVar[tuple[Strategy, ...]] = ()

    source: CandleOrigin = Field(
        default=_HISTORY.source,
        description="Where candles may come from. `auto` fetches what is missing and goes on with the stored candles "
        "when the exchange cannot be reached; `exchange` fails then; `stored` asks no exchange.",
    )
    history_days: int = Field(
        default=_HISTORY.history_days, description="Days of candles to train on, up to the latest: 1 to 36,500."
    )
    start: str = Field(
        default="",
        description="Train on candles from this time on: UTC, ISO 8601, such as `2024-01-31`. Empty: the last "
        "`history_days` count.",
    )
    end: str = Field(default="", description="Train on candles before this time. Empty: up to the latest.")
    simulated_edge: float = Field(
        default=0.0,
        description="Strength of the edge planted in simulated candles, about the mean gain in R that follows a "
        "sweep: -20 to 20, 0 for none. No effect on real candles.",
    )

    side: Side = Field(default="long", description="Which side is traded; spot markets know `long` only.")
    method: Method = Field(
        default=_SEARCH.method,
        description="How parameter sets are searched: `grid` tries them all, `random` a sample, `bayesian` and `tpe` "
        "learn from what they tried, `genetic` breeds a population, starting from what earlier trainings found. `auto` "
        "is `grid` where that takes less than a minute here, else `random`; with a budget it is `random`.",
    )
    budget: int = Field(
        default=_SEARCH.budget or 0,
        description="Trials per train window; 0 for what suits the method: "
        + ", ".join(f"{trials:,} ({method})" for method, trials in DEFAULT_BUDGETS.items())
        + ". `grid` tries all.",
    )
    objective: Objective = Field(default=_SEARCH.objective, description="The metric that the search maximises.")
    selection: Selection = Field(
        default=_SEARCH.selection,
        description="Which trial a search chooses: `best`, the one with the highest objective, or `plateau`, the one "
        "whose neighbourhood in the grid has the highest mean objective: a lone spike is not chosen. `plateau` takes "
        "`grid`.",
    )
    further_objectives: list[str] = Field(  # of Literals, Dagster takes no list
        default=list(_SEARCH.further_objectives),
        description="Metrics that a `genetic` search weighs beside `objective`, in search of the Pareto front, such as "
        f"`[drawdown]`; `objective` alone chooses what is run out-of-sample and stored. Of {', '.join(OBJECTIVES)}.",
    )
    minimum_trades: int = Field(
        default=_SEARCH.minimum_trades, description="Trades in a train window that make a trial valid, 1 or more."
    )
    max_combinations: int = Field(
        default=_SEARCH.max_combinations, description="A search of more trials per window is refused."
    )
    max_runtime_seconds: float = Field(
        default=_SEARCH.max_runtime_seconds, description="Seconds for all searches together; 0: no limit."
    )
    seed: int = Field(default=_SEARCH.seed, description="0 or more. The same seed gives the same result, to the bit.")
    workers: int = Field(
        default=_SEARCH.workers, description="Threads that evaluate trials; 0: one per core. Changes no result."
    )
    memory_limit_mib: int = Field(
        default=_SEARCH.memory_limit_mib,
        description="Mebibytes that the tables of decisions and outcomes may hold before they are begun anew; 1 or "
        "more. Changes no result.",
    )

    filters: dict[str, float] = Field(
        default={},
        description="Optional filters of the strategy to switch on, each with its value, such as "
        "`{max_spread_tolerance: 20}`. Parameters that are tried with 0 alone and say `0 is off` are such filters.",
    )

    scheme: Scheme = Field(
        default=_WINDOWS.scheme,
        description="`walk_forward`: train, test on what follows, step on. `train_test_split`: once.",
    )
    train_days: int = Field(
        default=_WINDOWS.train_days, description="Days of a train window, 1 or more (walk_forward)."
    )
    test_days: int = Field(
        default=_WINDOWS.test_days, description="Days of a test period, its gap included; 1 or more (walk_forward)."
    )
    gap_days: int = Field(
        default=_WINDOWS.gap_days, description="Days left out at the head of a test period; below test_days."
    )
    step_days: int = Field(
        default=_WINDOWS.step_days or 0,
        description="Days from window to window, test_days - gap_days or more; 0: test_days (walk_forward).",
    )
    train_ratio: float = Field(
        default=_WINDOWS.train_ratio, description="Share of history trained on, above 0 and below 1 (train_test_split)."
    )
    reoptimise: bool = Field(
        default=_WINDOWS.reoptimise,
        description="Search every train window anew. If not, one parameter set runs over all test windows, and those "
        "figures are not out-of-sample.",
    )

    initial_capital: float = Field(
        default=_ACCOUNT.initial_capital, description="Equity at the start, in quote currency; above 0."
    )
    risk_fraction: float = Field(
        default=_ACCOUNT.risk_fraction,
        description="Share of equity that a stop-out loses, before costs: above 0, at most 1.",
    )
    max_leverage: float = Field(
        default=_ACCOUNT.max_leverage,
        description="Largest notional as a multiple of equity: above 0, at most 1,000.",
    )
    fee_rate: float = Field(
        default=_ACCOUNT.fee_rate, description="Taker fee on the notional, on entry and on exit: 0 to 0.1."
    )
    slippage: float = Field(
        default=_ACCOUNT.slippage,
        description="How much worse market and stop orders fill, as a share of the price: 0 to 0.1.",
    )
    max_holding_bars: int = Field(
        default=_ACCOUNT.max_holding_bars, description="Longest position in candles; 0: as the strategy says."
    )

    @cached_method
    def get_resource_definition(self) -> ConfigurableResourceFactoryResourceDefinition:
        """Return the definition that checks values; Dagster asks for it once."""
        plain = super().get_resource_definition()
        return _CheckedSettings(
            configurable_resource_cls=type(self),
            resource_fn=plain.resource_fn,
            config_schema=plain.config_schema,
            description=plain.description,
            nested_resources={},
            nested_partial_resources={},
        )

    @classmethod
    def for_strategy(cls, strategy: Strategy, **defaults: object) -> Self:
        """Return the settings of jobs that train ``strategy``: they say which filters it has, and take no others.

        ``defaults`` take the place of the class's own. They are defaults of a class again: to values that an instance
        is built with, Dagster does not hold where a run is given some of its settings only.
        """
        described = {"filters": f"{cls.model_fields['filters'].description} {_filters_of(strategy)}"}
        shown: dict[str, Any] = {}
        for name in {**defaults, **described}:
            plain = cls.model_fields[name]
            default = defaults.get(name, plain.default)
            shown[name] = (plain.annotation, Field(default=default, description=described.get(name, plain.description)))
        made = create_model(f"SettingsOf{branch_name(strategy)}", __base__=cls, __doc__=cls.__doc__, **shown)
        made.strategies = (strategy,)
        return made()

    def check(self) -> None:
        """Refuse what no training can be asked for.

        Raises
        ------
        InvalidInputError
            If a value is out of range, contradicts another, or names a filter that the strategy does not have.
        """
        self.training()
        history = self.history()
        if history.start_ms is not None and history.end_ms is not None and history.start_ms >= history.end_ms:
            raise InvalidInputError(f"end: found {self.end!r}, expected a time after start ({self.start!r}).")
        try:
            SimulatedMarketSettings(edge=self.simulated_edge)
        except InvalidInputError as error:
            raise InvalidInputError(f"simulated_edge: {error}") from None
        if self.filters:
            self._check_filters()

    def _check_filters(self) -> None:
        """Refuse filters that no strategy takes; which one is meant is not known outside the jobs of strategies."""
        strategies = self.strategies or [get_strategy(name) for name in strategy_names()]
        able = [strategy for strategy in strategies if set(self.filters) <= set(strategy.defaults)]
        if not able:
            known = sorted({name for strategy in strategies for name in strategy.defaults})
            raise one_of("filter", next(name for name in self.filters if name not in known), known, where="filters")
        for strategy in able[:1]:
            strategy.with_filters(self.filters)

    @classmethod
    def of(cls, training: TrainingSettings, history: HistorySettings, *, simulated_edge: float = 0.0) -> Self:
        """Return the resource that holds these settings."""
        domain = (training.account, training.search, training.windows)
        flat: dict[str, Any] = {f.name: getattr(part, f.name) for part in domain for f in fields(part)}
        flat |= {name: flat[name] or 0 for name in _ZERO_IS_NONE}
        return cls(
            side=training.side,
            source=history.source,
            history_days=history.history_days,
            start=_iso(history.start_ms),
            end=_iso(history.end_ms),
            simulated_edge=simulated_edge,
            filters=dict(training.filters),
            **flat,
        )

    def training(self) -> TrainingSettings:
        """Return what is asked of the search and its judgement.

        Raises
        ------
        InvalidInputError
            If settings contradict each other; the message names them. So does ``history``.
        """
        return TrainingSettings(
            side=self.side,
            account=AccountSettings(**self._values_of(AccountSettings)),
            search=SearchSettings(**self._values_of(SearchSettings)),
            windows=WindowSettings(**self._values_of(WindowSettings)),
            filters=self.filters,
        )

    def history(self) -> HistorySettings:
        """Return which candles to train on."""
        return HistorySettings(
            source=self.source,
            history_days=self.history_days,
            start_ms=_milliseconds("start", self.start),
            end_ms=_milliseconds("end", self.end),
        )

    def to_run_config(self) -> Mapping[str, object]:
        """Return the values as the Launchpad would write them."""
        return {name: getattr(self, name) for name in type(self).model_fields}

    def _values_of(self, owner: type) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(owner)}
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return {name: None if name in _ZERO_IS_NONE and value == 0 else value for name, value in values.items()}


class DatabaseResource(dg.ConfigurableResource[None]):
    """The project's PostgreSQL database, with its tables up to date.

    Where it is, and its password, come from the environment or tradepulse.toml, never from run configuration.
    """

    def open(self) -> Database:
        """Return the database; connects, starts the embedded server and migrates when first asked in a process."""
        settings = load_settings()
        url = settings.database_url.get_secret_value() if settings.database_url else None
        return _migrated(settings.data_dir, url)


class ArtifactsResource(dg.ConfigurableResource[None]):
    """The Parquet files that assets hand on. Where they are comes from the environment or tradepulse.toml."""

    def open(self) -> ArtifactStore:
        """Return the store."""
        return ArtifactStore(load_settings().artifacts_url)


class RefusingIOManager(dg.ConfigurableIOManager):
    """Refuses values. Assets hand on Parquet files and rows; a value would become a pickle."""

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Refuse to store ``obj``."""
        raise dg.DagsterInvariantViolationError(
            f"{context.step_key} returned a value of type {type(obj).__name__}. Expected a MaterializeResult: write a "
            "Parquet file or rows of the database, and hand on what names them."
        )

    def load_input(self, context: dg.InputContext) -> None:
        """Refuse to load anything: nothing is stored."""
        raise dg.DagsterInvariantViolationError(f"{context.asset_key} is not a value. Read its file or rows instead.")


@cache
def _migrated(data_dir: Path, url: str | None) -> Database:
    database = Database(database_url(data_dir, url))
    migrate(database)
    return database


def _filters_of(strategy: Strategy) -> str:
    filters = [parameter for parameter in strategy.parameters if parameter.name in strategy.defaults]
    listed = "; ".join(f"`{p.name}` ({p.unit}): {p.minimum:g} to {p.maximum:g}" for p in filters)
    return f"{strategy.name} has {listed or 'none'}."


def _iso(milliseconds: int | None) -> str:
    return "" if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()


def _milliseconds(name: str, text: str) -> int | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(
            f"{name}: found {text!r}, expected a date or time in UTC, ISO 8601, such as '2024-01-31' or "
            "'2024-01-31T12:00:00'."
        ) from None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)
