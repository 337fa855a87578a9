"""Run benchmarks and write ``results.csv``: ``run.py [NAME ...] [--corpus ROOT] [--device cuda] [--quick]``.

A benchmark that ran replaces its rows and leaves those of the others. ``--quick`` writes nothing unless ``--output``
says where: numbers of a shrunk run are not results.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from frame import Measurement, Settings, replace_rows, rows_of
from rich.console import Console
from rich.table import Table

from musictf.datasets.base import Dataset
from musictf.datasets.manifest import Manifest
from musictf.errors import InputError
from musictf.synthesis.synthetic import Synthetic

HERE = Path(__file__).resolve().parent
SHOWN = ("name", "value", "unit", "ratio", "target", "met")


def benchmarks() -> dict[str, Callable[[Settings], list[Measurement]]]:
    """Every file of this folder that has something to measure, by name."""
    modules = [importlib.import_module(path.stem) for path in sorted(HERE.glob("*.py")) if path.stem != "run"]
    return {module.__name__: module.measure for module in modules if hasattr(module, "measure")}


def corpus(root: str | None, quick: bool) -> Dataset:
    """A manifest folder, or the built-in songs, few and short for a quick run."""
    if root is not None:
        return Manifest(root=root)
    return Synthetic(num_tracks=20, seconds=10, workers=1) if quick else Synthetic()


def show(rows: Sequence[dict[str, str]]) -> None:
    """Print rows as a table, what each is against below it, and once what all share."""
    table = Table(*SHOWN)
    for row in rows:
        table.add_row(*(row[name] for name in SHOWN))
    console = Console(highlight=False)
    console.print(table)
    for row in rows:
        if row["against"]:
            console.print(f"{row['name']}: against {row['against']}", markup=False)
    console.print(f"{rows[0]['machine']}; commit {rows[0]['commit']}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is named, everything by default."""
    parser = argparse.ArgumentParser(description="Run benchmarks and write results.csv.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; all by default")
    parser.add_argument("--corpus", metavar="ROOT", help="a manifest folder with chords; the built-in songs by default")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where networks run")
    parser.add_argument("--quick", action="store_true", help="shrink everything to about a minute; writes no results")
    parser.add_argument("--output", type=Path, metavar="FILE", help="results.csv beside this script by default")
    given = parser.parse_args(arguments)
    known = benchmarks()
    if unknown := set(given.names) - known.keys():
        parser.error(f"{', '.join(sorted(unknown))} unknown: any of {', '.join(known)}")
    output = given.output or (None if given.quick else HERE / "results.csv")
    try:
        settings = Settings(corpus=corpus(given.corpus, given.quick), device=given.device, quick=given.quick)
        for name in given.names or known:
            rows = rows_of(name, known[name](settings), settings)
            if output is not None:
                replace_rows(output, name, rows)
            show(rows)
    except InputError as error:
        parser.error(str(error))
    if given.quick:
        print("quick: this shows that the benchmarks run; its numbers mean nothing")
    return 0


if __name__ == "__main__":
    sys.exit(main())
