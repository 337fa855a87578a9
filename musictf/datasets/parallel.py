"""Work on many files in parallel, with a progress bar.

Threads suffice: decoding, hashing and transforms all release the interpreter lock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rich.progress import Progress

from musictf.distributed import num_cores

Work = TypeVar("Work")
Result = TypeVar("Result")


def in_threads(make: Callable[[Work], Result], work: Sequence[Work], progress: Progress, title: str) -> list[Result]:
    """Apply a function to many items, with one thread for each core.

    Args:
        make: The function; an exception of it stops all threads.
        work: The items.
        progress: Where a new bar is shown.
        title: Text of the bar.

    Returns:
        Results in the order of the items.
    """
    bar = progress.add_task(title, total=len(work), visible=bool(work))

    def step(item: Work) -> Result:
        result = make(item)
        progress.advance(bar)  # safe to call from any thread
        return result

    executor = ThreadPoolExecutor(num_cores())
    try:
        return list(executor.map(step, work))
    finally:
        executor.shutdown(cancel_futures=True)  # Ctrl-C must not wait for the rest of the corpus
