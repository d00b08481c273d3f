# SPDX-License-Identifier: MIT
"""What a training shows: progress bars on a terminal, and how long it will take."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any


class Bar:
    """Counts images; with tqdm it shows them."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self.images = 0
        self.start = time.monotonic()

    def step(self, images: int, batches: int = 1) -> None:
        """Count so many images and batches more."""
        self.images += images
        if self._bar is not None:
            self._bar.update(batches)

    def note(self, text: Callable[[], str]) -> None:
        """Show a text beside the bar."""
        if self._bar is not None:
            self._bar.set_postfix_str(text())

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / max(time.monotonic() - self.start, 1e-9)


@contextlib.contextmanager
def progress_bar(title: str, total: int, first: int = 0, show: bool | None = None) -> Iterator[Bar]:
    """Give a `Bar` over the batches of an epoch.

    ``show=None`` shows it where stderr is a terminal and tqdm is installed.
    """
    bar = None
    if show or show is None and sys.stderr is not None and sys.stderr.isatty():
        try:
            from tqdm.auto import tqdm

            bar = tqdm(desc=title, total=total, initial=first, unit="batch", leave=False)
        except ImportError as error:
            if show:
                raise ImportError(
                    f"progress bars need tqdm, which cannot be imported ({error}); install it "
                    "with: pip install lucid_c[progress]"
                ) from error
    try:
        yield Bar(bar)
    finally:
        if bar is not None:
            bar.close()


def duration(seconds: float) -> str:
    """Return a time in words: ``"3 h 20 min"``."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
