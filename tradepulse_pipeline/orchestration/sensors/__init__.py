"""What watches for something to happen, a module per purpose."""
