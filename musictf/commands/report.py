"""``musictf report``: the rows of many runs as one comparison; and the same from Python."""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from musictf.reporting.report import FORMATS, print_missing, write_report
from musictf.results.rows import RESULTS, Row, read_rows

_EXAMPLES = """\
examples:
  musictf report runs                                      every run below runs/, on the terminal
  musictf report runs/probe/a runs/probe/b --format md     two runs as Markdown
  musictf report runs --baseline runs/probe/old            differences against an earlier run, track by track
  musictf report runs --output report.html --details       a self-contained page, with confusions
  musictf report runs/probe/sweep-a --missing              commands for the jobs of a sweep that are not finished
"""


@dataclass(frozen=True)
class ReportResult:
    """A report that was not printed.

    Attributes:
        rows: All rows below the folders, selected by validation or not.
        text: The report, as the command prints it or writes it to its output file.
    """

    rows: list[Row]
    text: str


def report(
    directories: str | Path | Sequence[str | Path],
    format: str | None = None,
    *,
    baseline: str | Path | None = None,
    output: str | Path | None = None,
    all_layers: bool = False,
    details: bool = False,
) -> ReportResult:
    """Compare all rows below folders: the command ``musictf report`` from Python, which prints nothing.

    Args:
        directories: Run folders, or folders that hold some; one or several.
        format: ``md``, ``csv``, ``latex`` or ``html``; by default the format of the suffix of `output`, or plain
            tables.
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
        reference = None if baseline is None else Path(baseline).expanduser()
        write_report(folders, format, reference, target, all_layers, details)
    # Folders may lie in each other; each file counts once.
    paths = sorted({path.resolve() for folder in folders for path in folder.rglob(RESULTS)})
    rows = [row for path in paths for row in read_rows(path)]
    return ReportResult(rows, printed.getvalue() if target is None else target.read_text(encoding="utf-8"))


def main(arguments: Sequence[str]) -> None:
    """Run the command with the arguments that follow the verb."""
    given = _parser().parse_args(arguments)
    if given.missing:
        print_missing(given.directories)
    else:
        write_report(given.directories, given.format, given.baseline, given.output, given.all_layers, given.details)


def help_text(arguments: Sequence[str] = ()) -> str:
    """The help of the verb."""
    return _parser().format_help()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="musictf report",
        description="Tables of result rows: means with 95 % intervals, baselines, paired differences. "
        "Only rows that agree in task, dataset, split and decoder are compared.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directories", nargs="+", metavar="DIR", help="run folders, or folders that hold some")
    parser.add_argument("--format", choices=FORMATS, help="default: by the suffix of --output, else for the terminal")
    parser.add_argument("--baseline", metavar="DIR", help="show differences against this run instead of the baselines")
    parser.add_argument("--output", metavar="FILE", help="write here instead of printing")
    parser.add_argument("--all-layers", action="store_true", help="also show layers that validation did not choose")
    parser.add_argument("--missing", action="store_true", help="only print commands that fill a sweep's missing cells")
    parser.add_argument("--details", action="store_true", help="also by class, quality and confusion")
    return parser
