"""``tradepulse record``, from recordings and live."""

from __future__ import annotations

import json
import threading

import numpy as np

from tradepulse_pipeline.market.candles import Candles
from tradepulse_pipeline.market.live.events import Trade
from tradepulse_pipeline.market.series import SeriesKey
from tradepulse_pipeline_tests.loopback import LoopbackExchange
from tradepulse_pipeline_tests.loopback.sockets import LoopbackSockets

START = 1_700_006_400_000
SERIES = SeriesKey.parse("binance:BTC-USDT:1m")


def recording(path, ids):
    """Write a recording by a clock that is 2 s behind."""
    lines = []
    for number in ids:
        trade = {"e": "trade", "s": "BTCUSDT", "t": number, "p": "100.5", "q": "2", "T": START + number, "m": False}
        lines.append(f"{(START + number - 2_000) * 1_000_000} {json.dumps({'stream': 'x', 'data': trade})}")
    path.write_text("\n".join(lines))
    return path


def test_a_recording_is_recorded_once(run, in_project, tmp_path):
    file = recording(tmp_path / "part.txt", [1, 2, 3, 6])
    done = run("record", "--pair", "BTC/USDT", "--replay", file)
    assert done.exit_code == 0, done.output
    assert "binance:BTC-USDT 4 trades, 2 trades still missing, 1 breaks, median lag -2,000 ms" in done.stdout
    assert "the receiver's clock is behind" in done.stderr
    again = run("record", "--pair", "BTC/USDT", "--replay", file, "--json")
    assert [one["repeated"] for one in json.loads(again.stdout)] == [4]


def test_a_live_market_is_recorded_for_a_while(run, in_project, monkeypatch):
    flat = np.full(1, 100.0)
    candles = Candles.from_arrays(SERIES.timeframe, np.array([START]), flat, flat, flat, flat, flat)
    with LoopbackExchange({SERIES: candles}) as exchange, LoopbackSockets(exchange) as sockets:
        monkeypatch.setenv("TRADEPULSE_EXCHANGE_URL", sockets.base_url)

        def say() -> None:
            sockets.wait_for_subscribers(SERIES, "trades", "candles")
            sockets.trade(SERIES.market, *(Trade(n, START + n, 99.0, 1.0, -1) for n in range(101, 106)))
            sockets.candle(SERIES, (START, 100.0, 100.0, 100.0, 100.0, 1.0), is_closed=True)

        saying = threading.Thread(target=say)
        saying.start()
        done = run("record", "--channels", "trades,candles", "--for", "3s", "--json")
        saying.join()
    assert done.exit_code == 0, done.output
    (listed,) = json.loads(done.stdout)
    assert (listed["trades"], listed["candles"], listed["interruptions"]) == (5, 1, 0)
    stored = json.loads(run("markets", "--json").stdout)
    assert ["binance.live"] in [one["sources"] for one in stored]


def test_wrong_options_are_refused(run, in_project):
    for options, message in (
        (("--for", "soon"), "--for: found 'soon', expected a span of time such as 90s"),
        (("--channels", "trades,depht"), "Unknown channel 'depht'. Did you mean 'depth'?"),
        (("--exchange", "okx"), "okx: depth cannot be recorded live."),
        (("--timeframe", "7m"), "Unknown timeframe '7m'"),
    ):
        done = run("record", *options)
        assert done.exit_code == 2
        assert message in " ".join(done.stderr.split())
