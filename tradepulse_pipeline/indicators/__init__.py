"""Causal columns over candles."""
