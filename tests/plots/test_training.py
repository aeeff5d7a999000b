"""The picture of one training."""

from __future__ import annotations

import numpy as np

from lrbench_caffe.metrics import Measurement
from lrbench_caffe.plots.training import training_figure

ITERATIONS = np.array([(t, 0.01, 2.0 - t / 100) for t in range(100)])


def panels(measurements: list[Measurement]) -> list[str]:
    """What is drawn, from above."""
    axes = training_figure("a", ITERATIONS, measurements, []).axes
    return [panel.get_ylabel() for panel in axes]


def test_a_net_that_does_not_classify_has_no_panel_of_accuracy():
    known = Measurement(50, 0.01, test_loss=1.5, outputs={"loss": 1.5})  # the loss panel has it
    assert panels([known]) == ["loss", "learning rate"]
    more = Measurement(50, 0.01, test_loss=1.5, outputs={"loss": 1.5, "mae": 0.5})
    assert panels([more]) == ["loss", "test net outputs", "learning rate"]
    assert panels([Measurement(50, 0.01, top1=90.0)]) == ["Top-1 (%)", "loss", "learning rate"]
    assert panels([]) == ["Top-1 (%)", "loss", "learning rate"]  # nothing is known yet
