# SPDX-License-Identifier: MIT
"""Ctrl-C and SIGTERM during a training: raised where nothing is half done."""

import signal
import threading
from types import FrameType
from typing import Any, Self


class Stopped(KeyboardInterrupt):
    """A signal asked the training to stop."""


class Signals:
    """While entered, the first SIGINT or SIGTERM raises `Stopped`, but not within `held`.

    A forward or backward that is running is left; what is held is finished first. Later signals
    are passed over, so that the state can be saved. Other threads than the main one cannot take
    signals: nothing is done there.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._holds = 0
        self._arrived = self._raised = False

    def __enter__(self) -> Self:
        self._arrived = self._raised = False
        self._holds = 0
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def held(self) -> "Hold":
        """Return a context that is finished before a signal is raised."""
        return Hold(self)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._arrived = True
        self._raise()

    def _raise(self) -> None:
        if self._arrived and not self._raised and not self._holds:
            self._raised = True
            raise Stopped


class Hold:
    """Made by `Signals.held`."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals

    def __enter__(self) -> None:
        self._signals._holds += 1

    def __exit__(self, kind: object, *error: object) -> None:
        self._signals._holds -= 1
        if kind is None:
            self._signals._raise()
