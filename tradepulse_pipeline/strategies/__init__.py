"""Strategies: what they declare and what they decide."""
