"""``tradepulse backtest``: one run of a strategy with given parameters."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tradepulse_pipeline.cli import console
from tradepulse_pipeline.cli import options as opt
from tradepulse_pipeline.cli.naming import timeframe_of_file
from tradepulse_pipeline.errors import InvalidInputError
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from tradepulse_pipeline.backtest.result import BacktestResult
    from tradepulse_pipeline.backtest.settings import BarRange
    from tradepulse_pipeline.market.candles import Candles
    from tradepulse_pipeline.strategies.base import Strategy

CANDLES: Final = "Candles"
RUN: Final = "Run"


def backtest(
    ctx: typer.Context,
    candles: Annotated[
        Path | None,
        typer.Option("--candles", metavar="FILE", rich_help_panel=CANDLES, help="Candles from a file, see 'import'."),
    ] = None,
    exchange: Annotated[
        str | None,
        typer.Option("--exchange", metavar="NAME", rich_help_panel=CANDLES, help="Stored candles of this exchange."),
    ] = None,
    pair: Annotated[
        str | None, typer.Option("--pair", metavar="BASE/QUOTE", rich_help_panel=CANDLES, help="Pair of --exchange.")
    ] = None,
    timeframe: Annotated[
        str | None,
        typer.Option(
            "--timeframe",
            metavar="SPAN",
            rich_help_panel=CANDLES,
            help="Span of a candle, such as 5m or 1h; may be left out where the file's name tells it.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="TIME",
            rich_help_panel=RUN,
            help="First candle that may decide or trade, UTC: 2025-01-31 or 2025-01-31T12:00. Indicators see the "
            "candles before it too.",
        ),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="TIME",
            rich_help_panel=RUN,
            help="End of the run, UTC, exclusive: candles that open earlier belong to it.",
        ),
    ] = None,
    strategies: Annotated[
        str | None, opt.setting("strategies", "--strategy", RUN, "NAME", text="Strategy to run.")
    ] = None,
    params: Annotated[
        str | None,
        typer.Option(
            "--params",
            metavar="JSON|@FILE",
            rich_help_panel=RUN,
            help="Every parameter by name, or a file of them; optional filters may be left out.",
        ),
    ] = None,
    side: opt.TradedSide = None,
    fee_rate: opt.FeeRate = None,
    slippage: opt.Slippage = None,
    initial_capital: opt.Capital = None,
    risk_fraction: opt.Risk = None,
    max_leverage: opt.Leverage = None,
    max_holding_bars: opt.MaxHolding = None,
    as_json: opt.AsJson = False,
) -> None:
    """Run a strategy once with given parameters.

    Takes candles from a file, which needs no database, or stored ones. Rows that are no valid candles are left out and
    reported; gaps of up to three candles are filled forward, and no trade is entered across a longer one.

    --json prints metrics and trades: times are the open times of the candles of decision, entry and exit in UTC;
    rates are fractions; pnl is in quote currency after costs.

    [dim]$[/dim] tradepulse backtest --candles binance_BTC-USDT_5m.parquet --from 2025-06-01 --params '{"pierce_depth":
    0.003, "rejection_candles": 3, "volume_spike_threshold": 2, "reversal_candle_size": 0.5, "key_level_lookback": 100,
    "stop_distance": 1.5, "target_multiple": 2}'
    """
    from tradepulse_pipeline.backtest.api import backtest_strategy, cost_per_trade_r
    from tradepulse_pipeline.indicators.frame import IndicatorFrame
    from tradepulse_pipeline.strategies.own import register_own_strategies
    from tradepulse_pipeline.strategies.registry import get_strategy

    settings = load_settings(**opt.given(ctx))
    register_own_strategies(settings.own_strategies)
    account = settings.account()
    chosen = get_strategy(_only_strategy(settings))
    parameters = _checked(chosen, _read_params(params, chosen))
    start_ms, end_ms = console.parse_time(start, "--from"), console.parse_time(end, "--to")
    series, found = _candles(settings, candles, exchange, pair, timeframe)
    filled = found.filled_forward()
    frame = IndicatorFrame.compute(filled, chosen.indicators)
    window = _window(filled, start_ms, end_ms)
    result = backtest_strategy(frame, chosen, parameters, side=settings.side, account=account, window=window)
    if as_json:
        console.print_json({"metrics": result.metrics.as_dict(), "trades": trade_records(result, filled)})
        return
    page = console.stdout()
    ran = filled.slice(*window)
    page.print(f"{chosen.name}, {settings.side}, on {series}", style="bold", markup=False)
    page.print(
        f"{console.day_of_ms(int(ran.open_time_ms[0]))} to {console.day_of_ms(ran.end_ms)} UTC, {len(ran):,} candles, "
        f"{int(ran.is_filled.sum()):,} of them filled; fee {account.fee_rate:g}, slippage {account.slippage:g}",
        markup=False,
    )
    rows = console.metric_rows(result.metrics.as_dict())
    rows.append(["Costs per trade, R", console.number(cost_per_trade_r(result.trades, account), 3)])
    page.print(console.table(["Metric", "Figure"], rows))
    page.print("Net profit and averages are in quote currency. --json lists the trades.", style="dim", markup=False)


def trade_records(result: BacktestResult, candles: Candles) -> list[dict[str, Any]]:
    """Return the trades for JSON: times are open times of bars, ``target_price`` is None where there is none."""
    from tradepulse_pipeline.backtest.result import EXIT_REASONS
    from tradepulse_pipeline.strategies.decisions import LONG

    trades, times = result.trades, candles.open_time_ms
    r_multiple = trades.r_multiple
    return [
        {
            "decision_time": console.utc(int(times[trades.decision_bar[k]])),
            "entry_time": console.utc(int(times[trades.entry_bar[k]])),
            "exit_time": console.utc(int(times[trades.exit_bar[k]])),
            "side": "long" if trades.side[k] == LONG else "short",
            "entry_price": float(trades.entry_price[k]),
            "exit_price": float(trades.exit_price[k]),
            "stop_price": float(trades.stop_price[k]),
            "target_price": None if math.isnan(trades.target_price[k]) else float(trades.target_price[k]),
            "quantity": float(trades.quantity[k]),
            "pnl": float(trades.pnl[k]),
            "r_multiple": float(r_multiple[k]),
            "exit_reason": EXIT_REASONS[trades.exit_reason[k]],
        }
        for k in range(len(trades))
    ]


def _only_strategy(settings: Settings) -> str:
    if len(settings.strategies) > 1:
        raise InvalidInputError(f"--strategy: found {', '.join(settings.strategies)}, expected one for a backtest.")
    return settings.strategies[0]


def _read_params(text: str | None, strategy: Strategy) -> dict[str, Any]:
    if text is None:
        raise InvalidInputError(f"--params is missing: expected JSON with every parameter.\n{_listed(strategy)}")
    where = "--params"
    if text.startswith("@"):
        where = text[1:]
        try:
            text = Path(where).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(f"--params: the file {where} cannot be read: {error}.") from None
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidInputError(
            f'{where}: not valid JSON: {error}. Expected an object such as \'{{"{strategy.parameters[0].name}": '
            f"{strategy.parameters[0].grid[0]}, …}}'."
        ) from None
    if not isinstance(values, dict):
        raise InvalidInputError(f"{where}: found {text.strip()[:60]!r}, expected a JSON object, parameters by name.")
    return values


def _checked(strategy: Strategy, parameters: Mapping[str, object]) -> dict[str, float]:
    try:
        return strategy.check(parameters)
    except InvalidInputError as error:
        raise InvalidInputError(f"{error}\n{_listed(strategy)}") from None


def _listed(strategy: Strategy) -> str:
    lines = [f"  {p.name:<24} {p.minimum:g} to {p.maximum:g}, {p.unit}" for p in strategy.parameters]
    return "\n".join([f"Parameters of {strategy.name}:", *lines])


def _candles(
    settings: Settings, path: Path | None, exchange: str | None, pair: str | None, timeframe: str | None
) -> tuple[str, Candles]:
    if path is not None:
        if exchange is not None or pair is not None:
            raise InvalidInputError("Give either --candles FILE, or --exchange and --pair for stored candles.")
        return path.name, _read_file(path, timeframe)
    if exchange is None or pair is None:
        raise InvalidInputError("Candles are missing: give --candles FILE, or --exchange, --pair and --timeframe.")
    from tradepulse_pipeline.cli.database import open_database, stored_candles

    series = SeriesKey.of(exchange, pair, timeframe or settings.timeframes[0])
    with open_database(settings) as database:
        return str(series), stored_candles(database, series)


def _read_file(path: Path, timeframe: str | None) -> Candles:
    from tradepulse_pipeline.market.sources.files import read_candle_file
    from tradepulse_pipeline.market.sources.rows import count_reasons

    read = read_candle_file(path, timeframe_of_file(path, timeframe))
    if read.rejected:
        console.warn(
            f"{path.name}: {len(read.rejected)} of {read.n_rows} rows left out: {count_reasons(read.rejected)}."
        )
    if read.n_duplicates:
        console.warn(f"{path.name}: {read.n_duplicates} repeated rows count once.")
    return read.candles


def _window(candles: Candles, start_ms: int | None, end_ms: int | None) -> BarRange:
    import numpy as np

    from tradepulse_pipeline.backtest.settings import BarRange

    times = candles.open_time_ms
    first = 0 if start_ms is None else int(np.searchsorted(times, start_ms))
    last = len(candles) if end_ms is None else int(np.searchsorted(times, end_ms))
    if first >= last:
        raise InvalidInputError(
            "--from and --to leave no candle: there are candles from "
            f"{console.day_of_ms(int(times[0]))} to {console.day_of_ms(candles.end_ms)} UTC."
        )
    return BarRange(first, last)
