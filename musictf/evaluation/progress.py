"""One progress bar for a whole study: features, heads and scores of every probed model."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """A bar of stages of equal length that shows the name of the current stage.

    Args:
        title: Begins the description of every stage.
        stages: Number of stages.
        console: Where to draw.
    """

    def __init__(self, title: str, stages: int, console: Console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self._bar = Bar(*columns, TimeRemainingColumn(), console=console, transient=True)
        self._title = title
        self._done = 0
        self._task = self._bar.add_task(title, total=stages)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def stage(self, name: str, total: int) -> Callable[[], None]:
        """Begin the next stage of ``total`` steps; call the returned function after each step."""
        first, steps = self._done, 0
        self._done += 1
        self._bar.update(self._task, completed=first, description=f"{self._title} · {name}")

        def advance() -> None:
            nonlocal steps
            steps += 1
            # A stage never exceeds its share of the bar, even if it makes more steps than announced.
            self._bar.update(self._task, completed=first + min(1.0, steps / max(1, total)))

        return advance

    def skip(self, stages: int) -> None:
        """Count stages that an earlier run has finished as done."""
        self._done += stages
        self._bar.update(self._task, completed=self._done)
