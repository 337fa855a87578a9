"""Keep what an experiment's tables are made of: ``python experiments/keep.py RUN FOLDER``.

All rows, but only the track scores and resampled values of rows that validation chose: the rest can be made again, and
is many times as large. Existing files of the folder are replaced.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

CELL = ("task", "readout", "layer", "seed")
RESAMPLED = ("map", "roc_auc", "macro_f1", "wcsr_majmin")


def main(run: Path, folder: Path) -> None:
    """Copy rows, chosen track scores, resampled values and pictures of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("results.jsonl", "tracks.csv", "leakage.csv", "robustness.jsonl"):
        if (run / name).is_file():
            shutil.copy(run / name, folder / name)
    rows = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    chosen = {
        (*(str(row[key]) for key in CELL), row["decoder"]["name"], row["backbone"]["kind"])
        for row in rows
        if row["selected"]
    }
    with open(run / "per_track.csv", newline="") as source, open(folder / "per_track.csv", "w", newline="") as target:
        reader = csv.DictReader(source)
        writer = csv.DictWriter(target, reader.fieldnames or (), lineterminator="\n")
        writer.writeheader()
        cells = (*CELL, "decoder", "backbone")
        writer.writerows(line for line in reader if tuple(line[key] for key in cells) in chosen)
    shutil.rmtree(folder / "resamples", ignore_errors=True)
    for path in (path for name in RESAMPLED for path in run.glob(f"resamples/**/{name}.txt")):
        target_path = folder / path.relative_to(run)
        target_path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target_path)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python experiments/keep.py RUN FOLDER")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
