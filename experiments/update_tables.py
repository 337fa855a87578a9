"""Write the generated tables of ``README.md`` and ``docs/results.md`` from the committed rows: ``make results``.

A generated part stands between ``<!-- NAME: made by `make results`, do not edit -->`` and ``<!-- end of NAME -->``.
"""

from __future__ import annotations

import csv
import json
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from musictf.reporting.report import write_report

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = {
    "demo": "The demo",
    "transfer": "The demo's backbone on rendered pop",
    "first_run": "The first run on real input",
}
# The README shows one score of each task, from the decoder that validation selects with.
TASKS = {
    "chord": ("majmin", "argmax", "chords (majmin)"),
    "beat": ("f_measure", "peaks", "beats (F-measure)"),
    "tagging": ("map", "mean_probability", "instrument tags (mAP)"),
}
# Kinds of the rows of the README's table, with the readouts that may stand there.
SYSTEMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "**pretrained, sequence tokens**": ("pretrained", ("sequence",)),
    "pretrained, class token": ("pretrained", ("class",)),
    "pretrained, average of both": ("pretrained", ("average",)),
    "random weights, same shape": ("random", ("class", "sequence", "average")),
    "log-mel": ("mel", ("sequence", "average")),
    "MFCC": ("mfcc", ("sequence", "average")),
    "chroma": ("chroma", ("sequence", "average")),
    "classical system, no training": ("classical", ("audio",)),
    "majority answer": ("majority", ("constant",)),
    "ceiling: the truth at the token rate": ("oracle", ("targets",)),
}
SPEED = {
    "study/from cached features": "a study of chords, 225 linear heads, from cached features",
    "study/from audio": "the same study, from audio",
    "extraction/speed": "features of all layers, from audio",
    "contrast/time": "NT-Xent of 8192 pairs, time",
    "contrast/memory": "NT-Xent of 8192 pairs, memory",
    "excerpts/of seeking": "random excerpts from a pack",
    "step/float32, of the plain way": "a pretraining step, float32",
    "step/bf16, of the plain way": "a pretraining step, bfloat16",
}


def main() -> None:
    """Render every experiment, then replace the generated parts of the README and of the results page."""
    sections = []
    for name, title in EXPERIMENTS.items():
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "page.md"
            write_report([ROOT / "experiments" / name], output=page)
            text = page.read_text()
        (ROOT / "experiments" / name / "results.md").write_text(text)
        sections.append(f"## {title}: tables\n\n{headlines(text)}\n")
    replace_part(ROOT / "docs" / "results.md", "tables", "\n".join(sections))
    replace_part(ROOT / "README.md", "results", results_table(ROOT / "experiments" / "demo"))
    replace_part(ROOT / "README.md", "speed", speed_table(ROOT / "experiments" / "benchmarks" / "results.csv"))


def replace_part(path: Path, name: str, text: str) -> None:
    """Replace what stands between the two markers of a name."""
    start, end = f"<!-- {name}: made by `make results`, do not edit -->", f"<!-- end of {name} -->"
    pattern = f"{re.escape(start)}.*?{re.escape(end)}"
    page, count = re.subn(pattern, lambda _: f"{start}\n{text.strip()}\n{end}", path.read_text(), flags=re.S)
    if count != 1:
        raise SystemExit(f"{path}: expected the markers of {name!r} once, found them {count} times")
    path.write_text(page)


def headlines(text: str) -> str:
    """The tables of a report without the third and later scores, the controls of frame-level tasks and the notes."""
    lines: list[str] = []
    is_frame_level = False
    for line in text.splitlines():
        if line.startswith("## "):
            is_frame_level = not line.startswith(("## tagging", "## key"))
            lines.append(f"#{line}")
        elif line.startswith("|"):
            cells = line.strip("|").split("|")
            if not (is_frame_level and cells[1].strip() in {"class", "average"}):
                lines.append("|" + "|".join(cells[:8]) + "|")
        elif not line.startswith("- **Note"):
            lines.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def results_table(experiment: Path) -> str:
    """One score a task of the demo: the pretrained readouts, and the best readout of each baseline."""
    columns = {task: selected_rows(experiment / task / "results.jsonl") for task in TASKS}
    lines = [
        "| on 30 unseen songs | " + " | ".join(title for _, _, title in TASKS.values()) + " |",
        "|---|---|---|---|",
    ]
    for label, (kind, readouts) in SYSTEMS.items():
        cells = [best_score(columns[task], kind, readouts, *TASKS[task][:2]) for task in TASKS]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def selected_rows(path: Path) -> list[dict[str, Any]]:
    """The rows whose layer validation chose."""
    return [row for row in map(json.loads, path.read_text().splitlines()) if row["selected"]]


def best_score(rows: Iterable[dict[str, Any]], kind: str, readouts: tuple[str, ...], score: str, decoder: str) -> str:
    """The highest mean of a score, with its interval."""
    any_decoder = kind in {"classical", "majority"}  # they have one of their own
    scores = [
        row["scores"][score]
        for row in rows
        if row["backbone"]["kind"] == kind
        and row["readout"] in readouts
        and (any_decoder or row["decoder"]["name"] == decoder)
    ]
    if not scores:
        return "none"
    best = max(scores, key=lambda entry: entry["mean"])
    low, high = best["ci95"]
    return f"{_short(best['mean'])} [{_short(low)} {_short(high)}]"


def speed_table(path: Path) -> str:
    """Ratios of the benchmarks, with what they are against and whether the target was met."""
    with open(path, newline="") as file:
        measured = {row["name"]: row for row in csv.DictReader(file)}
    lines = ["| what | against | times better | target |", "|---|---|---:|---:|"]
    for name, label in SPEED.items():
        row = measured[name]
        against = row["against"].partition(":")[0].split(", extrapolated")[0].split(", validation left out")[0]
        met = "met" if row["met"] == "yes" else "**not met**"
        lines.append(f"| {label} | {against} | {float(row['ratio']):.3g} | {float(row['target']):.3g}, {met} |")
    return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


if __name__ == "__main__":
    main()
