"""Keep the files that an experiment's tables need: ``python experiments/keep.py RUN FOLDER``.

It keeps all rows, but only the track scores of rows that validation chose, and only the resampled values that tables
show: the rest can be made again, and is many times as large. Existing files of the folder are replaced.
"""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path

from musictf.results.resamples import RESAMPLES, add_resamples, read_resamples
from musictf.results.rows import PER_TRACK, RESULTS, read_rows

CELL = ("task", "readout", "layer", "seed")
RESAMPLED = ("map", "roc_auc", "macro_f1", "wcsr_majmin")


def main(run: Path, folder: Path) -> None:
    """Copy rows, chosen track scores and resampled values of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (RESULTS, "tracks.csv", "leakage.csv", "robustness.jsonl"):
        if (run / name).is_file():
            shutil.copy(run / name, folder / name)
    chosen = {
        (row["task"], row["readout"], str(row["layer"]), str(row["seed"]), row["decoder"]["name"])
        + (row["backbone"]["kind"],)
        for row in read_rows(run / RESULTS)
        if row["selected"]
    }
    with open(run / PER_TRACK, newline="") as source, open(folder / PER_TRACK, "w", newline="") as target:
        reader = csv.DictReader(source)
        writer = csv.DictWriter(target, reader.fieldnames or (), lineterminator="\n")
        writer.writeheader()
        columns = (*CELL, "decoder", "backbone")
        writer.writerows(line for line in reader if tuple(line[name] for name in columns) in chosen)
    values = read_resamples(run)
    (folder / RESAMPLES).unlink(missing_ok=True)
    add_resamples(folder, {key: values[key] for key in sorted(values) if key.rpartition("/")[2] in RESAMPLED})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python experiments/keep.py RUN FOLDER")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
