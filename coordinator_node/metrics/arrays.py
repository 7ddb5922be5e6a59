"""What the measures share about arrays: one value an observation, NaN where there is none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

type Floats = NDArray[np.float64]


def finite_pairs(left: Floats, right: Floats) -> tuple[Floats, Floats]:
    """Both arrays without the positions where either is not finite."""
    both = np.isfinite(left) & np.isfinite(right)
    return left[both], right[both]


def without_gaps(*matrices: Floats) -> bool:
    """Whether every value is finite, so that rows can be worked on together.

    Only a sum of finite values is finite; where one is too large for a float, rows are taken one by one for nothing.
    """
    with np.errstate(all="ignore"):
        return all(bool(np.isfinite(matrix.sum())) for matrix in matrices)


def alike(matrix: Floats) -> bool:
    """Whether all rows of finite values are the same, as the returns of models that answered in the same slots are."""
    return bool((matrix == matrix[:1]).all())
