"""The table of README.md beside this file, from the metrics of every run: ``python experiments/contrast/table.py``."""

from __future__ import annotations

import csv
from pathlib import Path

HERE = Path(__file__).resolve().parent
LAYERS = (0, 1, 2, 4)
BEGIN, END = "<!-- results -->", "<!-- end of results -->"
HEAD = [
    "| run | step | chords, layers 0 1 2 4 | beats, layers 0 1 2 4 | tags | same track nearest | batch accuracy |",
    "|---|---|---|---|---|---|---|",
]


def line(name: str, row: dict[str, str]) -> str:
    """One row of the table: what the online probe saw after a step."""

    def values(task: str) -> str:
        return " ".join(_short(row[f"online/{task}_layer{layer}"]) for layer in LAYERS)

    cells = [name, row["step"], values("chord_accuracy"), values("beat_ap"), _short(row["online/tag_map"])]
    cells += [_short(row["online/retrieval_accuracy"]), _short(row.get("train/accuracy", ""))]
    return f"| {' | '.join(cells)} |"


def table() -> list[str]:
    """The random weights that all runs begin with, and the end of each run."""
    runs = {path.stem: _looks(path) for path in sorted(HERE.glob("*.csv"))}
    first = next(iter(runs.values()))[0]
    return [*HEAD, line("*random weights*", first), *(line(f"`{name}`", looks[-1]) for name, looks in runs.items())]


def main() -> None:
    """Put the table between its marks."""
    readme = HERE / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    readme.write_text("\n".join([before + BEGIN, *table(), END]) + after, encoding="utf-8")


def _looks(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["online/tag_map"]]


def _short(value: str) -> str:
    return f"{float(value):.3f}".removeprefix("0") if value else ""


if __name__ == "__main__":
    main()
