"""Work on many files at once, with a bar. Threads do: decoding, hashing and transforms all release the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rich.progress import Progress

from musictf.distributed import num_cores

Work = TypeVar("Work")
Result = TypeVar("Result")


def in_threads(make: Callable[[Work], Result], work: Sequence[Work], progress: Progress, title: str) -> list[Result]:
    """Results in the order of the work, a thread for each core.

    Args:
        make: Makes one result; what it raises stops everything.
        work: What there is to do.
        progress: Gets a bar of its own for this.
        title: What the bar says.
    """
    bar = progress.add_task(title, total=len(work), visible=bool(work))

    def step(item: Work) -> Result:
        result = make(item)
        progress.advance(bar)
        return result

    executor = ThreadPoolExecutor(num_cores())
    try:
        return list(executor.map(step, work))
    finally:
        executor.shutdown(cancel_futures=True)  # Ctrl-C must not wait for the rest of the corpus
