"""The tradepulse command."""
