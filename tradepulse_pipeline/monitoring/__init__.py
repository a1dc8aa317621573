"""Monitoring: how a trained configuration does on the candles that came after its training, and what follows."""
