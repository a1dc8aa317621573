"""TradePulse: a strategy trainer for OHLCV candles that searches everything and does not lie."""

__version__ = "0.1.0"
