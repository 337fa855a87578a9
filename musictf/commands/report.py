"""``musictf report``: the rows of many runs as one comparison. From Python: `musictf.report.collected`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from musictf.report.run import FORMATS, print_missing, report

_EXAMPLES = """\
examples:
  musictf report runs                                      every run below runs/, on the terminal
  musictf report runs/probe/a runs/probe/b --format md     two runs as Markdown
  musictf report runs --baseline runs/probe/old            differences against an earlier run, track by track
  musictf report runs --output report.html --details       a self-contained page, with confusions
  musictf report runs/probe/sweep-a --missing              commands for the jobs of a sweep that are not finished
"""


def main(arguments: Sequence[str]) -> None:
    """Run the command with the arguments that follow the verb."""
    given = _parser().parse_args(arguments)
    if given.missing:
        print_missing(given.directories)
    else:
        report(given.directories, given.format, given.baseline, given.output, given.all_layers, given.details)


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
