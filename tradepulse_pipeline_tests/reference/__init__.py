"""The slow reference: the documented bar model and strategies in plain Python, sharing no code with the engine."""
