"""What the signal kernels of several strategies share."""

from __future__ import annotations

from typing import Any

import numpy as np

from tradepulse_pipeline.compiled import njit


@njit(cache=True, nogil=True)
def with_room(found: Any, n_found: int, n_more: int) -> Any:
    """Return ``found`` where ``n_more`` values fit behind the first ``n_found``, else a copy at least twice as long."""
    if n_found + n_more <= found.shape[0]:
        return found
    larger = np.empty(2 * found.shape[0] + n_more, found.dtype)
    larger[:n_found] = found[:n_found]
    return larger
