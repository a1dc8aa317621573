"""The engine: from decisions to trades, equity and metrics."""
