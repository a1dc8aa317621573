"""A stand-in exchange on this machine: Binance's and Kraken's public interfaces, with faults on demand."""

from __future__ import annotations

from tradepulse_pipeline_tests.loopback.faults import Fault
from tradepulse_pipeline_tests.loopback.server import LoopbackExchange

__all__ = ["Fault", "LoopbackExchange"]
