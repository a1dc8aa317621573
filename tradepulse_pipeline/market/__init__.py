"""Candles: what they belong to, where they come from, and whether they can be trusted."""
