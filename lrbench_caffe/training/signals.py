"""The effects of SIGINT, SIGHUP and SIGTERM on a training: as in ``caffe train``."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

EFFECTS = ("stop", "snapshot", "none")


class Signals:
    """While entered, turns signals into requests that the training loop looks at between iterations.

    Args:
        sigint, sighup: one of ``EFFECTS``, as ``caffe train``'s --sigint_effect and
            --sighup_effect.

    SIGTERM stops like SIGINT's "stop": batch systems send it before they kill. A second SIGINT
    while the training is already stopping ends it at once.
    """

    def __init__(self, sigint: str = "stop", sighup: str = "snapshot") -> None:
        self._effects = {signal.SIGINT: sigint, signal.SIGHUP: sighup, signal.SIGTERM: "stop"}
        self._before: dict[int, Any] = {}
        self.stop = False
        self.snapshot = False

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            for number in self._effects:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def pending(self) -> bool:
        """Whether a request waits for the training loop."""
        return self.stop or self.snapshot

    def take_snapshot_request(self) -> bool:
        wanted, self.snapshot = self.snapshot, False
        return wanted

    def _handle(self, number: int, frame: FrameType | None) -> None:
        effect = self._effects[signal.Signals(number)]
        if effect == "stop":
            if self.stop and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.stop = True
        elif effect == "snapshot":
            self.snapshot = True
