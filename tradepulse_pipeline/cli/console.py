"""What the terminal shows: results on stdout, everything else on stderr, figures in one spelling."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.progress import duration as duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

#: How commands end: it did not work, it was asked wrongly, it was interrupted.
EXIT_FAILED: Final = 1
EXIT_WRONG_INPUT: Final = 2
EXIT_INTERRUPTED: Final = 130

#: Columns of a page where nobody's terminal says otherwise: output into a file or a pipe.
PIPE_WIDTH: Final = 120

#: Characters that a column keeps when it gives way to others.
_FOLDED: Final = 12


def stdout() -> Console:
    """Return the console of results."""
    return _console(stderr=False)


def stderr() -> Console:
    """Return the console of notices, progress and errors."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH
    return console


def say(message: str) -> None:
    """Write a plain sentence to stderr; brackets in it stay brackets."""
    _write(message, "")


def warn(message: str) -> None:
    """Write a sentence to stderr that should be seen."""
    _write(message, "yellow")


def complain(message: str) -> None:
    """Write an error to stderr."""
    from rich.text import Text

    _write(Text.assemble(("Error: ", "bold red"), (message, "red")), "")


def _write(message: str | Text, style: str) -> None:
    """Break lines between words on a terminal, and not at all where a program or a file takes them."""
    console = stderr()
    console.print(message, style=style, markup=False, soft_wrap=not console.is_terminal)


def print_json(value: object) -> None:
    """Write a value to stdout as JSON, floats in full precision.

    Raises
    ------
    ValueError
        If it holds NaN or infinity, which JSON does not know.
    """
    print(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False))  # noqa: T201


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    left: int = 1,
    folding: Collection[str] = (),
    header: bool = True,
) -> Table:
    """Return a table whose first ``left`` columns are texts and whose others are figures, aligned to the right.

    The columns in ``folding`` give way where the terminal is too narrow for all.
    """
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, show_header=header, padding=(0, 1, 0, 0))
    for position, column in enumerate(columns):
        justify: Literal["left", "right"] = "left" if position < left else "right"
        is_folding = column in folding
        made.add_column(
            column, justify=justify, overflow="fold", no_wrap=not is_folding, min_width=_FOLDED if is_folding else None
        )
    for row in rows:
        made.add_row(*row)
    return made


def utc(open_time_ms: int) -> str:
    """Return a time in ISO 8601 with its UTC offset.

    Examples
    --------
    >>> utc(1_735_689_900_000)
    '2025-01-01T00:05:00+00:00'
    """
    return datetime.fromtimestamp(open_time_ms / 1000, UTC).isoformat()


def day(time: datetime) -> str:
    """Return the UTC date and minute that people read."""
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def day_of_ms(open_time_ms: int) -> str:
    """Return the UTC date and minute of a time in milliseconds."""
    return day(datetime.fromtimestamp(open_time_ms / 1000, UTC))


def parse_time(text: str | None, option: str) -> int | None:
    """Return UTC milliseconds of an ISO 8601 date or time, None for none; a time without an offset is UTC.

    Raises
    ------
    InvalidInputError
        If it is not one.

    Examples
    --------
    >>> parse_time("2025-01-01", "--from") == parse_time("2025-01-01T01:00+01:00", "--from") == 1_735_689_600_000
    True
    """
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(
            f"{option}: found {text!r}, expected an ISO 8601 date or time such as 2025-01-31 or 2025-01-31T12:00 (UTC)."
        ) from None
    aware = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1000)


def number(value: float | None, digits: int = 2) -> str:
    """Return a figure with thousands separated, a dash for none.

    Examples
    --------
    >>> number(12345.678), number(-0.001), number(None)
    ('12,345.68', '0.00', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:,.{digits}f}"
    return text.lstrip("-") if not float(text.replace(",", "")) else text


def percent(value: float | None, digits: int = 1) -> str:
    """Return a fraction as per cent: 0.0123 is 1.2 %."""
    return "–" if value is None or not math.isfinite(value) else f"{number(100 * value, digits)} %"


def _profit_factor(value: float | None) -> str:
    return "∞" if value is None else number(value)


#: How each metric is called, and how it is shown.
_METRICS: Final[dict[str, tuple[str, Callable[[float | None], str]]]] = {
    "net_profit": ("Net profit", number),
    "total_return": ("Total return", percent),
    "annualized_return": ("Annualised return", percent),
    "sharpe_ratio": ("Sharpe ratio", number),
    "sortino_ratio": ("Sortino ratio", number),
    "calmar_ratio": ("Calmar ratio", number),
    "max_drawdown": ("Largest drawdown", percent),
    "sample_size": ("Trades", partial(number, digits=0)),
    "win_rate": ("Winning trades", percent),
    "gross_win_rate": ("Winning before costs", percent),
    "average_win": ("Average win", number),
    "average_loss": ("Average loss", number),
    "profit_factor": ("Profit factor", _profit_factor),
    "expectancy_r": ("Expectancy per trade, R", partial(number, digits=3)),
    "average_holding_bars": ("Average holding, bars", partial(number, digits=1)),
    "exposure": ("Time in the market", percent),
    "adverse_selection_score": ("Adverse selection", partial(number, digits=3)),
    "fill_rate": ("Fill rate", percent),
}


def metric_rows(*records: Mapping[str, float | None], names: Iterable[str] = tuple(_METRICS)) -> list[list[str]]:
    """Return a row per metric: its name, then its figure in each of ``records``."""
    return [[_METRICS[name][0], *(_METRICS[name][1](record[name]) for record in records)] for name in names]
