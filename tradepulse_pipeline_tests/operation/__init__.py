"""A day of operation in fast motion: `python -m tradepulse_pipeline_tests.operation` tells it, pytest checks it."""
