"""Windows, the out-of-sample record and what it proves."""
