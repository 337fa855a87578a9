"""Digests of the rows of a tiny study: a change of the code that must not change results prints the same ones.

    python experiments/row_digests.py [FOLDER]

It pretrains a tiny backbone for three steps, probes three tasks and inspects it, through the command line alone. Times,
versions, paths and commits are left out; every score, interval, choice and digest is in. Takes about three minutes.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CORPUS = ["dataset=synthetic", "dataset.num_tracks=40", "dataset.seconds=10"]
TASKS = ("tagging", "chord", "beat")
# Fields of the row contract that do not depend on where and when a run took place.
FIELDS = ("schema", "task", "dataset", "split", "readout", "layer", "seed", "selected", "selection", "scores")
FIELDS += ("decoder", "details", "head", "features", "probe")
BACKBONE = ("digest", "kind", "preset", "parameters")


def musictf(*arguments: str) -> None:
    """Run a command; what it prints goes to stderr."""
    environment = os.environ | {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-m", "musictf", *arguments], check=True, stdout=sys.stderr, env=environment)


def run_study(folder: Path) -> list[Path]:
    """Pretrain, probe and inspect in a folder; returns the run folders that hold rows."""
    backbone = f"backbone={folder / 'pretrain'}"
    musictf(
        "pretrain", *CORPUS, "model=vit1d_mini", "max_steps=3", "batch_size=4", "checkpoint.every=3", "valid_every=3",
        "trainer=cpu", f"output_dir={folder / 'pretrain'}",
    )  # fmt: skip
    runs = []
    for task in TASKS:
        runs.append(folder / task)
        # Named, so that a baseline that is added later changes no digest.
        baselines = "baselines=[random,mel,mfcc,chroma,classical,majority,oracle]"
        keys = [baselines, "seeds=[0,1]", "probe.steps=40", "probe.valid_every=20", "probe.learning_rates=[1e-3,1e-2]"]
        musictf("probe", backbone, f"task={task}", *CORPUS, *keys, "trainer=cpu", f"output_dir={runs[-1]}")
    runs.append(folder / "inspect")
    keys = ["seeds=[0]", "attention.draws=20", "similarity.draws=3", "similarity.gap_seconds=2", "listen=0"]
    musictf("inspect", backbone, *CORPUS, *keys, "trainer=cpu", f"output_dir={runs[-1]}")
    return runs


def row_text(row: dict) -> str:
    """A row without what differs from run to run."""
    kept = {name: row.get(name) for name in FIELDS}
    kept["backbone"] = {name: row["backbone"].get(name) for name in BACKBONE}
    return json.dumps(kept, sort_keys=True)


def digest_of(path: Path) -> str:
    """Digest of the rows of a run, whatever their order."""
    texts = sorted(row_text(json.loads(line)) for line in (path / "results.jsonl").read_text().splitlines())
    state = hashlib.sha256("\n".join(texts).encode())
    tracks = sorted((path / "per_track.csv").read_text().splitlines())
    state.update("\n".join(tracks).encode())
    return f"{state.hexdigest()[:16]}  {len(texts)} rows, {len(tracks) - 1} track scores"


def main() -> None:
    """Print a line for each run."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary).resolve()
        for path in run_study(folder):
            print(f"{path.name:10} {digest_of(path)}")


if __name__ == "__main__":
    main()
