"""``tradepulse markets``: which candles are stored, what they were trained to, and which series are followed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
import typer

from tradepulse_pipeline.cli import console
from tradepulse_pipeline.cli.options import AsJson
from tradepulse_pipeline.cli.verdict import marked, series_of, stage, stale_mark
from tradepulse_pipeline.errors import InvalidInputError, SourceError, one_of
from tradepulse_pipeline.market.calendars import calendar_of
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.settings import SETTINGS_FILE, Settings, load_settings, variable

if TYPE_CHECKING:
    import dagster as dg

    from tradepulse_pipeline.database.candles import Coverage
    from tradepulse_pipeline.database.configurations import ConfigurationRow

#: Active configurations that are looked through for what a series was trained to.
MOST_CONFIGURATIONS: Final = 10_000


#: The list in the settings that the sensor declared_markets watches.
_LIST: Final = "markets"

AllSeries = Annotated[
    list[str],
    typer.Argument(metavar="SERIES…", help="Such as binance:BTC/USDT:5m. A shell makes many of {BTC,ETH}/USDT."),
]


def markets(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the stored candles and what they were trained to; add and remove markets.

    Coverage is the share of candles that is there between the first and the last one.
    """
    if ctx.invoked_subcommand is not None:
        return
    from tradepulse_pipeline.cli.database import open_database
    from tradepulse_pipeline.database.candles import coverage
    from tradepulse_pipeline.database.configurations import list_configurations

    with open_database(load_settings()) as database:
        stored = coverage(database)
        trained: dict[str, list[ConfigurationRow]] = {str(one.series): [] for one in stored}
        for row in list_configurations(database, limit=MOST_CONFIGURATIONS):
            trained.setdefault(str(series_of(row)), []).append(row)
    if as_json:
        console.print_json([_listed(one, trained[str(one.series)]) for one in stored])
    elif not stored:
        console.say("No candles are stored yet. 'tradepulse train' fetches some, 'tradepulse import' reads files.")
    else:
        columns = ["Series", "Last trained", "From", "To", "Candles", "Coverage"]
        rows = [_row(one, trained[str(one.series)]) for one in stored]
        console.stdout().print(console.table(columns, rows, left=2, folding=("Series", "Last trained")))


def list_followed(as_json: AsJson = False) -> None:
    """List the series that are followed: whatever runs by itself takes part in them alone.

    A series is followed while it is a partition in the web UI. The sensor declared_markets adds those that
    'markets' in tradepulse.toml names; others were added by a person, or by a training.

    [dim]$[/dim] tradepulse markets list
    """
    from tradepulse_pipeline.cli.database import open_database
    from tradepulse_pipeline.database.candles import coverage
    from tradepulse_pipeline.orchestration.partitions import SERIES_DIMENSION

    settings = load_settings()
    declared = [str(series) for series in settings.markets]
    with open_database(settings) as database:
        stored = {str(one.series): one for one in coverage(database)}
        with _instance(settings) as instance:
            followed = list(instance.get_dynamic_partitions(SERIES_DIMENSION))
    all_keys = list(dict.fromkeys((*declared, *followed)))
    if as_json:
        console.print_json(
            [{"series": key, "is_declared": key in declared, "is_followed": key in followed} for key in all_keys]
        )
    elif not all_keys:
        console.say("No series is followed. 'tradepulse markets add binance:BTC/USDT:5m' follows one.")
    else:
        columns = ["Series", "Followed", f"In {SETTINGS_FILE}", "Candles to"]
        rows = [
            [
                f"{key}{marked(key.partition(':')[0])}",
                "yes" if key in followed else "not yet",
                "yes" if key in declared else "–",
                console.day_of_ms(stored[key].last_ms) if key in stored else "–",
            ]
            for key in all_keys
        ]
        console.stdout().print(console.table(columns, rows, left=len(columns), folding=("Series",)))


def add_series(series: AllSeries) -> None:
    """Follow series: add them to the list in tradepulse.toml, and to the web UI.

    The sensor declared_markets of the web UI then fetches their candles and trains them, with the strategies of the
    setting 'strategies'. Whether an exchange has a pair is looked up where it can be reached. Adding again is harmless.

    [dim]$[/dim] tradepulse markets add binance:BTC/USDT:5m kraken:ETH/USD:1h
    [dim]$[/dim] tradepulse markets add {binance,bybit}:{BTC,ETH,SOL}/USDT:{5m,15m,1h,4h}
    """
    from tradepulse_pipeline.cli.settings_file import with_added
    from tradepulse_pipeline.orchestration.followed import follow

    settings = _with_list_in_file()
    wanted = list(dict.fromkeys(SeriesKey.read(text) for text in series))
    _check(settings, [one for one in wanted if one not in settings.markets])
    keys = [str(one) for one in wanted]
    with _rewriting(settings) as change:

        def add(text: str) -> str:
            declared = _declared_in(text)
            return with_added(text, _LIST, [key for key in keys if key not in declared])

        is_changed = change(add)
    with _instance(settings) as instance:
        new = follow(instance, keys)
        for key in keys:
            is_old = key not in new and SeriesKey.parse(key) in settings.markets
            console.stdout().print(f"{key}: {'was followed already' if is_old else 'is followed'}", markup=False)
        if is_changed or new:
            console.say(_what_happens_next(instance))


def remove_series(series: AllSeries) -> None:
    """Follow series no longer: take them from the list in tradepulse.toml and from the web UI.

    Their waiting and working runs are cancelled. Candles and configurations are kept. Removing again is harmless.

    [dim]$[/dim] tradepulse markets remove kraken:ETH/USD:1h
    """
    from tradepulse_pipeline.cli.settings_file import without
    from tradepulse_pipeline.orchestration.followed import unfollow
    from tradepulse_pipeline.orchestration.partitions import SERIES_DIMENSION

    settings = _with_list_in_file()
    unwanted = list(dict.fromkeys(SeriesKey.read(text) for text in series))
    with _rewriting(settings) as change:
        change(lambda text: without(text, _LIST, lambda value: _read(value) in unwanted))
    with _instance(settings) as instance:
        known = [*map(str, settings.markets), *instance.get_dynamic_partitions(SERIES_DIMENSION)]
        for one in unwanted:
            was_there, n_stopped = unfollow(instance, str(one))
            if was_there or one in settings.markets:
                stopped = f"; {n_stopped} of its runs cancelled" if n_stopped else ""
                line = f"{one}: is not followed any more{stopped}. Its candles and configurations are kept."
                console.stdout().print(line, markup=False)
            else:
                console.warn(str(one_of("series", one, dict.fromkeys(known), where="what is followed")))


def _with_list_in_file() -> Settings:
    """Return the settings, if it is the file that says which series are declared.

    Raises
    ------
    InvalidInputError
        If the environment does: the file would be changed to no effect.
    """
    settings = load_settings()
    if variable(_LIST) in os.environ and settings.origin(_LIST) != SETTINGS_FILE:
        raise InvalidInputError(
            f"{variable(_LIST)} in the environment says which series are followed, and goes before {SETTINGS_FILE}. "
            "Change it there, or unset it."
        )
    return settings


@contextmanager
def _rewriting(settings: Settings) -> Iterator[Any]:
    from tradepulse_pipeline.cli.settings_file import rewriting

    with rewriting(settings.project_dir / SETTINGS_FILE, settings.data_dir / "settings.lock") as change:
        yield change


@contextmanager
def _instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    from tradepulse_pipeline.orchestration.launch import open_instance

    with open_instance(settings.project_dir) as instance:
        yield instance


def _read(value: object) -> SeriesKey | None:
    """Return the series that a value of the list stands for, None if it is none."""
    try:
        return SeriesKey.read(str(value))
    except InvalidInputError:
        return None


def _declared_in(text: str) -> set[str]:
    import tomllib

    return {str(_read(value)) for value in tomllib.loads(text).get(_LIST, [])}


def _check(settings: Settings, wanted: Sequence[SeriesKey]) -> None:
    """Look up whether the sources have the series, as far as they can be reached.

    Raises
    ------
    InvalidInputError
        If one is not there; the message gives the nearest names of each. Nothing has been changed then.
    """
    from tradepulse_pipeline.cli.plan import Sources
    from tradepulse_pipeline.market.sources.registry import check_exchange

    sources = Sources(settings)
    refused: list[str] = []
    unseen: dict[str, list[str]] = {}
    for series in wanted:
        try:
            check_exchange(series.exchange)
            sources.check(series)
        except InvalidInputError as error:
            refused.append(f"{series}: {error}")
        except SourceError as error:
            unseen.setdefault(str(error), []).append(str(series))
    if refused:
        raise InvalidInputError("\n".join([*refused, "Nothing was changed."]))
    for reason, keys in unseen.items():
        console.warn(f"{reason} Whether it has {', '.join(keys)} could not be looked up.")


def _what_happens_next(instance: dg.DagsterInstance) -> str:
    from tradepulse_pipeline.orchestration.followed import DECLARED_MARKETS, daemon_is_running, sensor_is_on

    if not sensor_is_on(instance, DECLARED_MARKETS, by_default=True):
        return (
            f"The sensor {DECLARED_MARKETS} is switched off: nothing happens by itself. Switch it on in the web UI "
            f"(Automation → {DECLARED_MARKETS}), or run 'tradepulse train'."
        )
    if daemon_is_running(instance):
        return f"The sensor {DECLARED_MARKETS} fetches their candles and trains them, beginning within a minute."
    return (
        f"'tradepulse up' starts the web UI, whose sensor {DECLARED_MARKETS} fetches their candles and trains them. It "
        "does not run at the moment."
    )


def _share(one: Coverage) -> float:
    ends = np.array([one.first_ms, one.last_ms])
    missing = calendar_of(one.series.exchange).missing_between(ends, one.series.timeframe)
    return one.n_candles / (int(missing[0]) + 2) if one.last_ms > one.first_ms else 1.0


def _row(one: Coverage, trained: list[ConfigurationRow]) -> list[str]:
    return [
        f"{one.series}{marked(one.series.exchange)}",
        f"{stage(trained[0].lifecycle_stage)}{stale_mark(trained[0])} {trained[0].strategy_name}" if trained else "–",
        console.day_of_ms(one.first_ms)[:10],
        console.day_of_ms(one.last_ms)[:10],
        f"{one.n_candles:,}",
        console.percent(_share(one)),
    ]


def _listed(one: Coverage, trained: list[ConfigurationRow]) -> dict[str, Any]:
    return {
        "series": str(one.series),
        "is_simulated": one.series.market.is_simulated,
        "candles": one.n_candles,
        "first": console.utc(one.first_ms),
        "last": console.utc(one.last_ms),
        "coverage": _share(one),
        "sources": list(one.sources),
        "trained": [
            {
                "strategy": row.strategy_name,
                "stage": row.lifecycle_stage,
                "configuration": str(row.id),
                "is_stale": row.stale_at is not None,
            }
            for row in trained
        ],
    }
