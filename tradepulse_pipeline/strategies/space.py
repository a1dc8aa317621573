"""The finite space of parameter sets that a search may try: the product of the parameters' grids."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np

from tradepulse_pipeline.market.candles import FloatArray, IntArray
from tradepulse_pipeline.strategies.base import Parameter


class ParameterSpace:
    """All combinations of the grids of ``parameters``, numbered from 0; the last parameter varies fastest."""

    def __init__(self, parameters: tuple[Parameter, ...]) -> None:
        self.parameters: Final = parameters
        self.shape: Final = tuple(len(parameter.grid) for parameter in parameters)
        self.size: Final = math.prod(self.shape)

    def indices(self, combinations: IntArray) -> IntArray:
        """Return grid indices of shape (n, n_parameters) for combination numbers of shape (n,)."""
        return np.array(np.unravel_index(combinations, self.shape), dtype=np.int64).T

    def combinations(self, indices: IntArray) -> IntArray:
        """Return combination numbers of shape (n,) for grid indices of shape (n, n_parameters)."""
        return np.array(np.ravel_multi_index(tuple(indices.T), self.shape), dtype=np.int64)

    def values(self, combination: int) -> dict[str, float]:
        """Return the parameter set of one combination."""
        position = np.unravel_index(combination, self.shape)
        return {p.name: float(p.grid[int(i)]) for p, i in zip(self.parameters, position, strict=True)}

    def combination_of(self, values: Mapping[str, object]) -> int | None:
        """Return the number of a parameter set, None when it is not one of the space."""
        filled = {p.name: values.get(p.name, p.default) for p in self.parameters}
        if not values.keys() <= filled.keys() or any(filled[p.name] not in p.grid for p in self.parameters):
            return None
        position = np.array([[p.grid.index(filled[p.name]) for p in self.parameters]])
        return int(self.combinations(position)[0])

    def columns(self, combinations: IntArray) -> dict[str, FloatArray]:
        """Return one column of values per parameter, each of shape (n,)."""
        positions = np.unravel_index(combinations, self.shape)
        return {
            p.name: np.array(p.grid, dtype=np.float64)[position]
            for p, position in zip(self.parameters, positions, strict=True)
        }
