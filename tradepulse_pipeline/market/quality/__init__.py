"""Whether candles can be trusted: what is missing, frozen or wild, likely wrong, and whether to train on them."""

from tradepulse_pipeline.market.quality.gaps import Gap, NoTrade
from tradepulse_pipeline.market.quality.outliers import Judgement, Outlier
from tradepulse_pipeline.market.quality.report import (
    LARGE_MOVE,
    MINIMUM_CANDLES,
    MINIMUM_COVERAGE,
    Aspect,
    Problem,
    QualityReport,
    Severity,
    assess,
)
from tradepulse_pipeline.market.quality.surroundings import Neighbours, Surroundings, is_same_asset

__all__ = [
    "LARGE_MOVE",
    "MINIMUM_CANDLES",
    "MINIMUM_COVERAGE",
    "Aspect",
    "Gap",
    "Judgement",
    "Neighbours",
    "NoTrade",
    "Outlier",
    "Problem",
    "QualityReport",
    "Severity",
    "Surroundings",
    "assess",
    "is_same_asset",
]
