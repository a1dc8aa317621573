"""The ``tradepulse`` command: its commands, and how any of them ends."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from tradepulse_pipeline.cli.backtest import backtest
from tradepulse_pipeline.cli.breakers import breakers
from tradepulse_pipeline.cli.check import check
from tradepulse_pipeline.cli.config import config
from tradepulse_pipeline.cli.console import EXIT_FAILED, EXIT_WRONG_INPUT, complain, say
from tradepulse_pipeline.cli.estimate import estimate
from tradepulse_pipeline.cli.fetch import fetch
from tradepulse_pipeline.cli.import_candles import import_candles
from tradepulse_pipeline.cli.jobs import jobs
from tradepulse_pipeline.cli.markets import add_series, list_followed, markets, remove_series
from tradepulse_pipeline.cli.monitor import monitor
from tradepulse_pipeline.cli.options import normalized
from tradepulse_pipeline.cli.quality import quality
from tradepulse_pipeline.cli.quarantine import add, dismiss_rows, keep_candles, list_rows, release_rows
from tradepulse_pipeline.cli.record import record
from tradepulse_pipeline.cli.replay import replay
from tradepulse_pipeline.cli.results import results, show
from tradepulse_pipeline.cli.sources import sources
from tradepulse_pipeline.cli.train import train
from tradepulse_pipeline.cli.up import up
from tradepulse_pipeline.errors import InvalidInputError, TradePulseError


class Commands(TyperGroup):
    """The commands, each ending in a clear message and an exit code instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, typer.TyperException, BrokenPipeError):
            raise
        except Exception as error:
            if ctx.params["debug"]:
                raise
            if isinstance(error, TradePulseError):
                complain(str(error))
            else:
                complain(f"This is a fault of TradePulse itself: {type(error).__name__}: {error}")
                say("'tradepulse --debug …' shows where it happened.")
            raise typer.Exit(EXIT_WRONG_INPUT if isinstance(error, InvalidInputError) else EXIT_FAILED) from None


def _flowing(text: str | None) -> str:
    """Return a docstring with a line per paragraph, for the terminal to break; examples keep their lines."""
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(part if part.startswith("[dim]$") else part.replace("\n", " ") for part in paragraphs)


_HELP: Final = """TradePulse trains trading strategies on candles and says plainly whether the result is skill or luck.

Start with [bold]tradepulse train[/]: it fetches a year of BTC/USDT candles, searches LIQUIDITY_SWEEP_V3, judges the
result on data that the search has not seen, and stores the configuration. [bold]tradepulse up[/] opens the web UI.

Every setting can be an option, an environment variable (TRADEPULSE_FEE_RATE=0.00075) or a line in tradepulse.toml
(fee_rate = 0.00075), in this order; [bold]tradepulse config[/] shows which holds. Fees, slippage and risk are
fractions: 0.001 is 0.1 %. Times are UTC."""

app = typer.Typer(
    name="tradepulse",
    help=_flowing(_HELP),
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": normalized},
)


@app.callback()
def main(
    debug: Annotated[
        bool, typer.Option("--debug", envvar="TRADEPULSE_DEBUG", help="Show where in the code an error came from.")
    ] = False,
) -> None:
    """Take the options that come before a command; ``Commands`` reads them."""


for command, name, panel in (
    (train, "train", "Train"),
    (estimate, "estimate", "Train"),
    (backtest, "backtest", "Train"),
    (check, "check", "Train"),
    (replay, "replay", "Train"),
    (results, "results", "Look"),
    (show, "show", "Look"),
    (monitor, "monitor", "Look"),
    (breakers, "breakers", "Look"),
    (jobs, "jobs", "Look"),
    (quality, "quality", "Look"),
    (sources, "sources", "Look"),
    (fetch, "fetch", "Set up"),
    (import_candles, "import", "Set up"),
    (record, "record", "Set up"),
    (up, "up", "Set up"),
    (config, "config", "Set up"),
):
    app.command(name, help=_flowing(command.__doc__), rich_help_panel=panel)(command)

followed = typer.Typer(name="markets", context_settings=app.info.context_settings)
followed.callback(invoke_without_command=True, help=_flowing(markets.__doc__))(markets)
for change, name in ((list_followed, "list"), (add_series, "add"), (remove_series, "remove")):
    followed.command(name, help=_flowing(change.__doc__))(change)
app.add_typer(followed, rich_help_panel="Look")

quarantine = typer.Typer(
    name="quarantine",
    help="List rows that were refused and candles that were set aside; set aside, release or keep some.",
    no_args_is_help=True,
    context_settings=app.info.context_settings,
)
for decision, name in (
    (list_rows, "list"),
    (add, "add"),
    (release_rows, "release"),
    (dismiss_rows, "dismiss"),
    (keep_candles, "keep"),
):
    quarantine.command(name, help=_flowing(decision.__doc__))(decision)
app.add_typer(quarantine, rich_help_panel="Look")
