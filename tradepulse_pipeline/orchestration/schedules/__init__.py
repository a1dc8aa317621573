"""What runs by the clock, once somebody switches it on, a module per purpose."""
