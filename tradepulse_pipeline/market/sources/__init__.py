"""Where candles come from, behind one interface."""
