"""The whole way from candles to a stage in one call and in memory: nothing is stored."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tradepulse_pipeline.indicators.frame import IndicatorFrame
from tradepulse_pipeline.market.candles import FloatArray, IntArray
from tradepulse_pipeline.market.series import MS_PER_DAY, Market
from tradepulse_pipeline.optimizers.search import Trials
from tradepulse_pipeline.progress import ProgressListener, ignore_progress
from tradepulse_pipeline.strategies.base import Strategy
from tradepulse_pipeline.validation.evidence import EvidenceReport, TrialBlocks, gather_evidence
from tradepulse_pipeline.validation.lifecycle import Evidence, StageDecision, classify
from tradepulse_pipeline.validation.multiple_testing import corrected_p_values
from tradepulse_pipeline.validation.record import OutOfSampleRecord
from tradepulse_pipeline.validation.training import TrainingSettings
from tradepulse_pipeline.validation.trials import SearchResult
from tradepulse_pipeline.validation.walk_forward import judge_windows, search_windows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """What a training came to. ``blocks`` is None where the time was over before all trials were made."""

    found: SearchResult
    record: OutOfSampleRecord
    blocks: TrialBlocks | None
    report: EvidenceReport
    decision: StageDecision


def train_in_memory(
    frame: IndicatorFrame,
    strategy: Strategy,
    settings: TrainingSettings,
    market: Market,
    on_progress: ProgressListener = ignore_progress,
) -> Trained:
    """Search, judge, measure the evidence and decide the stage, as a training job with this one market does.

    Parameters
    ----------
    frame, strategy, settings
        As for ``search_windows``.
    market : Market
        What the candles are of: simulated ones never rise above PAPER.

    Raises
    ------
    InsufficientHistoryError
        If there are too few candles for one window.
    SearchLimitError
        If a search would make more trials than it may.
    """
    keeper = _BlocksInMemory()
    found = search_windows(frame, strategy, settings, on_progress, keeper)
    record = judge_windows(frame, strategy, settings, found, on_progress)
    blocks = keeper.blocks(n_days=len(np.unique(frame.open_time_ms // MS_PER_DAY)))
    report = gather_evidence(frame, strategy, settings, found, record, blocks)
    corrected = corrected_p_values([report.statistics.tested_p_value(record.p_value)]).benjamini_hochberg[0]
    evidence = replace(Evidence.of(record, market, report.statistics), corrected_p_value=corrected)
    return Trained(found=found, record=record, blocks=blocks, report=report, decision=classify(evidence))


class _BlocksInMemory:
    """A ``TrialKeeper`` that keeps the moments by block alone: no trial is recalled, and none is kept."""

    def __init__(self) -> None:
        self._sums: list[FloatArray] = []
        self._squares: list[FloatArray] = []

    def recall(self, window: int) -> Trials | None:
        """Return None: nothing is known."""
        return None

    def keep(self, window: int, trials: Trials) -> None:
        """Let the trials go."""

    def keep_blocks(self, combination: IntArray, sums: FloatArray, squares: FloatArray) -> None:
        """Keep the moments."""
        self._sums.append(sums)
        self._squares.append(squares)

    def blocks(self, *, n_days: int) -> TrialBlocks | None:
        """Return the moments of all parameter sets together; None if there are none."""
        if not self._sums:
            return None
        return TrialBlocks(sums=np.concatenate(self._sums), squares=np.concatenate(self._squares), n_days=n_days)
