"""What an exchange says while it happens: trades, the order book and candles as they close."""
