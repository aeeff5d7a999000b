"""Detects divergence from the training losses."""

from __future__ import annotations

import numpy as np

# -log(FLT_MIN): what Caffe's softmax loss says when every true class has probability 0.
LOSS_CEILING = 87.3365
PATIENCE = 100


class DivergenceWatch:
    """Watches the training losses.

    A training has diverged when a loss is NaN or infinite, or when for ``PATIENCE`` iterations in a
    row the loss is between half of Caffe's ceiling of 87.33 and the ceiling: most true classes have
    probability 0, and no gradient leads back. A net that guesses at random is at log(classes), far
    below.

    Args:
        has_ceiling: whether the loss is such that the ceiling applies (see
            nets.has_plain_softmax_loss).

    Attributes:
        iteration: the one whose loss the last verdict is of.
    """

    def __init__(self, has_ceiling: bool) -> None:
        self._has_ceiling = has_ceiling
        self._stuck = 0
        self.iteration = 0

    def look(self, start: int, losses: np.ndarray) -> str | None:
        """Take the losses from iteration ``start`` on; returns the verdict, None if all is well."""
        for iteration, loss in enumerate(losses.tolist(), start):
            self.iteration = iteration
            if not np.isfinite(loss):
                return f"the training diverged: the loss of iteration {iteration} is {loss}"
            high = self._has_ceiling and LOSS_CEILING / 2 <= loss <= LOSS_CEILING + 0.01
            self._stuck = self._stuck + 1 if high else 0
            if self._stuck >= PATIENCE:
                return (
                    f"the training diverged: at iteration {iteration} the loss was {loss:.2f} and had been "
                    f"at least {LOSS_CEILING / 2:.1f} for {PATIENCE} iterations "
                    f"(Caffe's ceiling is {LOSS_CEILING:.2f})"
                )
        return None
