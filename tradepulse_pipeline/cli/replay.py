"""``tradepulse replay``: a training repeated from its lineage, and compared to the bit."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from tradepulse_pipeline.backtest.compilation import engine_is_compiled
from tradepulse_pipeline.cli import console
from tradepulse_pipeline.cli.options import AsJson
from tradepulse_pipeline.cli.progress import display
from tradepulse_pipeline.cli.verdict import marked, series_of
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.settings import load_settings

if TYPE_CHECKING:
    from tradepulse_pipeline.configurations.comparison import Outcome
    from tradepulse_pipeline.configurations.lineage import Lineage
    from tradepulse_pipeline.database.configurations import ConfigurationRow
    from tradepulse_pipeline.market.candles import Candles
    from tradepulse_pipeline.strategies.base import Strategy

#: Differences that are listed; the rest are counted.
MOST_SHOWN: Final = 20


def replay(
    configuration_id: Annotated[
        str, typer.Argument(metavar="ID", help="Id of a configuration, or its first 8 characters or more.")
    ],
    as_json: AsJson = False,
) -> None:
    """Repeat a training and say whether the result is the same to the bit.

    Takes the stored candles of the very same span, the same settings and the same seed. Nothing is stored. What has
    changed since (candles that were restated, the engine, a dependency) is named. The exit code is 0 when parameters,
    metrics and windows are identical, 1 when they are not.

    [dim]$[/dim] tradepulse replay 1f0c2a9e
    """
    from tradepulse_pipeline.cli.database import open_database
    from tradepulse_pipeline.configurations.comparison import compare_outcomes
    from tradepulse_pipeline.configurations.configuration import build_configuration, why_no_configuration
    from tradepulse_pipeline.configurations.lineage import collect_lineage
    from tradepulse_pipeline.database.configurations import get
    from tradepulse_pipeline.database.corporate_actions import candles_for_training
    from tradepulse_pipeline.indicators.frame import IndicatorFrame
    from tradepulse_pipeline.strategies.own import register_own_strategies
    from tradepulse_pipeline.strategies.registry import get_strategy
    from tradepulse_pipeline.validation.training import TrainingSettings
    from tradepulse_pipeline.validation.walk_forward import judge_windows, search_windows

    settings = load_settings()
    register_own_strategies(settings.own_strategies)
    with open_database(settings) as database:
        row = get(database, configuration_id)
        series = series_of(row)
        candles = candles_for_training(database, series, _ms(row.data_start), _ms(row.data_end)).filled_forward()
    if not len(candles):
        raise InvalidInputError(f"The candles of {series} that {row.id} was trained on are no longer stored.")
    training = TrainingSettings.from_json_dict(row.settings)
    strategy = get_strategy(row.strategy_name).with_filters(training.filters)
    frame = IndicatorFrame.compute(candles, strategy.indicators)
    with display(
        f"Repeating {row.id} on {series}{marked(series.exchange)}", is_first_run=not engine_is_compiled()
    ) as listener:
        found = search_windows(frame, strategy, training, listener)
        record = judge_windows(frame, strategy, training, found, listener)
    lineage = collect_lineage(candles, strategy, training, n_trials=record.total_trials, run_id=row.run_id)
    repeated = build_configuration(series, strategy, training, record, lineage, datetime.now(UTC))
    if repeated is None:
        different = [f"no configuration this time: {why_no_configuration(record, training)}"]
    else:
        different = [str(difference) for difference in compare_outcomes(_completed(row, strategy), repeated)]
    changes = _changes(row, lineage, candles, strategy)
    if as_json:
        console.print_json({"identical": not different, "differences": different, "changed_since": changes})
    else:
        _show(row, different, changes)
    if different:
        raise typer.Exit(console.EXIT_FAILED)


def _completed(row: ConfigurationRow, strategy: Strategy) -> Outcome:
    """Return what is stored, with the optional filters that a set leaves out because they are younger than it."""

    def chosen(trial: dict[str, Any] | None) -> dict[str, Any] | None:
        return trial and trial | {"parameters": strategy.defaults | trial["parameters"]}

    windows = [{**window, "chosen": chosen(window["chosen"])} for window in row.windows]
    return cast("Outcome", replace(row, parameters=strategy.defaults | dict(row.parameters), windows=windows))


def _changes(row: ConfigurationRow, now: Lineage, candles: Candles, strategy: Strategy) -> list[str]:
    """Return what is not as it was when the configuration was trained."""
    changes = []
    if now.data_fingerprint != row.data_fingerprint:
        span = f"{console.day(row.data_start)} to {console.day(row.data_end)} UTC"
        changes.append(f"the candles from {span} ({len(candles):,} now): some were restated or added")
    if now.engine_hash != row.engine_hash:
        code = "the engine" if strategy.origin is None else f"the engine or {strategy.origin.place}"
        changes.append(f"{code}: {row.engine_hash[:12]} then, {now.engine_hash[:12]} now")
    for name, version in now.dependency_versions.items():
        if row.dependency_versions.get(name) != version:
            changes.append(f"{name}: {row.dependency_versions.get(name)} then, {version} now")
    return changes


def _show(row: ConfigurationRow, different: list[str], changes: list[str]) -> None:
    page = console.stdout()
    if different:
        page.print(f"[bold red]Not the same[/]: {len(different)} values differ from configuration {row.id}.")
        for line in different[:MOST_SHOWN]:
            page.print(f"  {line}", markup=False)
        if len(different) > MOST_SHOWN:
            page.print(f"  … and {len(different) - MOST_SHOWN} more")
    else:
        page.print(
            f"[bold green]Identical to the bit[/]: parameters, metrics and {len(row.windows)} windows of "
            f"configuration {row.id}, from {row.n_trials:,} trials."
        )
    for change in changes:
        page.print(f"Changed since: {change}.", style="yellow", markup=False)


def _ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)
