"""``tradepulse markets``: which candles are stored, and what they were trained to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tradepulse_pipeline.cli import console
from tradepulse_pipeline.cli.options import AsJson
from tradepulse_pipeline.cli.verdict import marked, series_of, stage, stale_mark
from tradepulse_pipeline.market.calendars import calendar_of
from tradepulse_pipeline.settings import load_settings

if TYPE_CHECKING:
    from tradepulse_pipeline.database.candles import Coverage
    from tradepulse_pipeline.database.configurations import ConfigurationRow

#: Active configurations that are looked through for what a series was trained to.
MOST_CONFIGURATIONS: Final = 10_000


def markets(as_json: AsJson = False) -> None:
    """List the stored candles and what they were trained to.

    Coverage is the share of candles that is there between the first and the last one.
    """
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
