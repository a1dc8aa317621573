"""Searches over a strategy's parameter space."""
