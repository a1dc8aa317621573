"""``tradepulse sources``: where candles can come from, and what each source gives and does not give."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from tradepulse_pipeline.cli import console
from tradepulse_pipeline.cli.options import AsJson
from tradepulse_pipeline.settings import load_settings


def sources(
    market: Annotated[
        str | None, typer.Argument(metavar="[MARKET]", help="Such as kraken:BTC-USD: its sources in their order.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what the sources of candles can give, and what they cannot.

    Without a market: the kinds of sources, with tested exchanges. An exchange's name stands for its candle endpoint;
    any exchange of ccxt is one.

    [dim]$[/dim] tradepulse sources kraken:BTC-USD
    """
    from tradepulse_pipeline.market.series import Market
    from tradepulse_pipeline.market.sources.registry import SHOWN, source_named, source_names

    settings = load_settings().sources()
    names = SHOWN if market is None else source_names(Market.parse_key(market), settings)
    offers = {name: source_named(name, settings).offer() for name in names}
    if as_json:
        console.print_json({name: asdict(offer) for name, offer in offers.items()})
        return
    columns = ["Source", "Timeframes", "History", "Volume in", "Does not give", "Key"]
    rows = [
        [
            name,
            " ".join(offer.timeframes),
            offer.history,
            offer.volume_unit,
            offer.limits or "–",
            offer.key_variable or "–",
        ]
        for name, offer in offers.items()
    ]
    folding = ("Timeframes", "History", "Does not give")
    console.stdout().print(console.table(columns, rows, left=len(columns), folding=folding))
