"""The report from Python: result rows, and the text that ``musictf report`` prints for them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from musictf.report.run import report
from musictf.results.rows import RESULTS, Row, read_rows


@dataclass(frozen=True)
class CollectedReport:
    """A report that was not printed.

    Attributes:
        rows: All rows below the folders, selected by validation or not.
        text: The report, as the command prints it or writes it to its output file.
    """

    rows: list[Row]
    text: str


def collected_report(
    directories: str | Path | Sequence[str | Path],
    format: str | None = None,
    *,
    baseline: str | Path | None = None,
    output: str | Path | None = None,
    all_layers: bool = False,
    details: bool = False,
) -> CollectedReport:
    """Compare all rows below folders: the command ``musictf report`` from Python, which prints nothing.

    Args:
        directories: Run folders, or folders that hold some; one or several.
        format: ``md``, ``csv``, ``latex`` or ``html``; by default plain tables, or what the suffix of `output` says.
        baseline: Run folder to take differences against, instead of the baselines.
        output: File to write as well.
        all_layers: Also show the layers that validation did not choose.
        details: Also show tables by class and quality, and confusions.

    Raises:
        InputError: A folder is missing or holds no rows.
    """
    folders = [Path(f).expanduser() for f in ([directories] if isinstance(directories, str | Path) else directories)]
    target = None if output is None else Path(output).expanduser()
    # The text is what the command prints, so that both are made by the same code.
    with redirect_stdout(io.StringIO()) as printed:
        report(folders, format, baseline, target, all_layers, details)
    # Folders may lie in each other; each file counts once.
    paths = sorted({path.resolve() for folder in folders for path in folder.rglob(RESULTS)})
    rows = [row for path in paths for row in read_rows(path)]
    return CollectedReport(rows, printed.getvalue() if target is None else target.read_text(encoding="utf-8"))
