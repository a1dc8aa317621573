"""A stand-in exchange on this machine: the public interfaces of six exchanges, with faults on demand."""

from __future__ import annotations

from tradepulse_pipeline_tests.loopback.faults import Fault
from tradepulse_pipeline_tests.loopback.server import LoopbackExchange

__all__ = ["Fault", "LoopbackExchange"]
