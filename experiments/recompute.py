"""Recompute the scores of a probe run from what it wrote down, without musictf: ``recompute.py RUN CORPUS_ROOT``.

Reads ``results.jsonl``, ``per_track.csv`` and ``estimates/`` of the run, and manifest and annotation files of the
corpus, by itself; scores with mir_eval and scikit-learn as ``experiments/PROTOCOL.md`` says. Every score of every
selected row is recomputed, over the split and track by track. Exit status 1 if any differs by more than 1e-6 or is
missing on either side. Intervals, ``unseen``, layers that were not selected and ``robustness.jsonl`` are left alone.

Conventions: times in seconds; NaN is an undefined score; a score of a split is a mean over the tracks that define it
unless it stands in the second dictionary that a scorer returns.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mir_eval
import numpy as np
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score  # type: ignore[import-untyped]

TOLERANCE = 1e-6
COMPARISONS = ("root", "thirds", "triads", "majmin", "sevenths", "tetrads", "mirex")
BEATS = {
    "f_measure": "F-measure",
    "cemgil": "Cemgil",
    "goto": "Goto",
    "p_score": "P-score",
    "cmlc": "Correct Metric Level Continuous",
    "cmlt": "Correct Metric Level Total",
    "amlc": "Any Metric Level Continuous",
    "amlt": "Any Metric Level Total",
    "information_gain": "Information gain",
}
SUFFIXES = {"chord": ".lab", "beat": ".beats", "downbeat": ".beats", "tempo": ".tempo", "onset": ".txt", "key": ".key"}
ANNOTATIONS = {
    "tagging": "tags", "chord": "chords", "beat": "beats", "downbeat": "beats", "tempo": "beats", "onset": "onsets"
}  # fmt: skip

Table = dict[str, list[float]]  # a score's value for each track
Found = tuple[Table, dict[str, float]]  # means over tracks, and scores that take the whole split


def read_manifest(root: Path) -> list[dict[str, Any]]:
    """Tracks of a manifest corpus, their files resolved, a split derived where none is named."""
    tracks = [json.loads(line) for line in (root / "manifest.jsonl").read_text().split("\n") if line.strip()]
    for track in tracks:
        identity = track.get("group") or track.get("artist") or track["track_id"]
        share = int.from_bytes(hashlib.sha256(str(identity).encode()).digest()[:8], "big") / 2**64
        track["split"] = track.get("split") or ("train" if share < 0.8 else "valid" if share < 0.9 else "test")
        for name in {"audio", "chords", "beats", "onsets"} & track.keys():
            track[name] = root / track[name]
    return tracks


def lines_of(path: Path) -> list[list[str]]:
    """Fields of the lines of an annotation file, comments left out."""
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return [line.split() for line in lines if line.strip() and not line.startswith("#")]


def read_chords(path: Path) -> tuple[np.ndarray, list[str]]:
    """Intervals (n, 2) and labels; a gap of more than 2 ms is ``X``, a smaller one rounding."""
    rows: list[tuple[float, float, str]] = []
    for start_text, end, label in lines_of(path):
        start = float(start_text)
        if rows and start > rows[-1][1] + 2e-3:
            rows.append((rows[-1][1], start, "X"))
        rows.append((rows[-1][1] if rows else start, float(end), label))
    return np.array([row[:2] for row in rows], dtype=float).reshape(-1, 2), [row[2] for row in rows]


def read_beats(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Beat times, and those of downbeats; None where no bars are given."""
    rows = lines_of(path)
    times = np.array([float(row[0]) for row in rows])
    if not rows or len(rows[0]) < 2:
        return times, None
    return times, times[np.array([float(row[1]) for row in rows]) == 1]


def read_onsets(path: Path) -> np.ndarray:
    """Onset times, each once."""
    return np.unique(np.array([float(row[0]) for row in lines_of(path)]))


def read_probabilities(path: Path) -> dict[str, float]:
    """Probability of each tag or class."""
    with open(path, newline="", encoding="utf-8") as file:
        return {name: float(value) for name, value in list(csv.reader(file))[1:]}


def key_of(text: str) -> str:
    """A key as mir_eval names it, however it is spelt."""
    letter, accidentals, mode = re.findall(r"([A-Ga-g])([#b♯♭]*)[\s:]+(maj|min)", text, re.IGNORECASE)[0]
    pitch = "C D EF G A B".index(letter.upper()) + sum(1 if sign in "#♯" else -1 for sign in accidentals)
    return f"{('C', 'C#', 'D', 'D#', 'E', 'F', 'F#', 'G', 'G#', 'A', 'A#', 'B')[pitch % 12]} {mode.lower()}or"


def tagging(references: list[list[str]], estimates: list[dict[str, float]], training: list[list[str]]) -> Found:
    """Average precision and area under the curve, macro over tags that some test tracks have and some have not."""
    columns = []
    for tag in sorted(set().union(*training)):
        truth = [tag in tags for tags in references]
        if 0 < sum(truth) < len(truth):
            columns.append((truth, [estimate[tag] for estimate in estimates]))
    means = {
        name: float(np.mean([score(*column) for column in columns]))
        for name, score in (("map", average_precision_score), ("roc_auc", roc_auc_score))
    }
    return {}, means


def classes(references: list[str], estimates: list[dict[str, float]], training: list[str]) -> Found:
    """Accuracy, and F1 macro over the classes that occur."""
    wanted = [label.strip() for label in references]
    found = [max(estimate, key=lambda name: estimate[name]) for estimate in estimates]
    right = [float(pair[0] == pair[1]) for pair in zip(wanted, found, strict=True)]
    return {"accuracy": right}, {"macro_f1": float(f1_score(wanted, found, average="macro", zero_division=0))}


def chord(references: list[Any], estimates: list[Any], training: object) -> Found:
    """Comparisons weighted by duration, in each track and over all of them."""
    table: Table = {name: [] for name in (*COMPARISONS, "coverage", "seg")}
    totals = np.zeros((len(COMPARISONS), 2))
    everything = 0.0
    for reference, estimate in zip(references, estimates, strict=True):
        agreed, counted, seconds, segmentation = compared_chords(*reference, *estimate)
        for name, share in zip(COMPARISONS, ratio(agreed, counted), strict=True):
            table[name].append(share)
        table["coverage"].append(counted[COMPARISONS.index("majmin")] / seconds)
        table["seg"].append(segmentation)
        totals += np.column_stack([agreed, counted])
        everything += seconds
    recalls = dict(zip(COMPARISONS, ratio(*totals.T), strict=True))
    recalls["coverage"] = totals[COMPARISONS.index("majmin"), 1] / everything
    return table, {f"wcsr_{name}": value for name, value in recalls.items()}


def compared_chords(
    wanted: np.ndarray, wanted_labels: list[str], found: np.ndarray, found_labels: list[str]
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Seconds that agree and that are compared, for each comparison, seconds in all, and the score of boundaries."""
    found, found_labels = mir_eval.util.adjust_intervals(found, found_labels, wanted.min(), wanted.max(), "N", "N")
    lasting = found[:, 1] > found[:, 0]  # mir_eval leaves an empty interval of an estimate that changes at the very end
    found, found_labels = found[lasting], [found_labels[k] for k in np.flatnonzero(lasting)]
    merged, one, other = mir_eval.util.merge_labeled_intervals(wanted, wanted_labels, found, found_labels)
    durations = mir_eval.util.intervals_to_durations(merged)
    answers = [getattr(mir_eval.chord, name)(one, other) for name in COMPARISONS]
    segmentation = mir_eval.chord.seg(
        mir_eval.chord.merge_chord_intervals(wanted, wanted_labels),
        mir_eval.chord.merge_chord_intervals(found, found_labels),
    )
    agreed = np.array([durations[answer >= 0] @ answer[answer >= 0] for answer in answers])
    counted = np.array([durations[answer >= 0].sum() for answer in answers])
    return agreed, counted, float(durations.sum()), float(segmentation)


def ratio(numerators: np.ndarray, denominators: np.ndarray) -> list[float]:
    """Quotients, NaN for 0 / 0."""
    return [float(n / d) if d > 0 else math.nan for n, d in zip(numerators, denominators, strict=True)]


def beat(references: list[Any], estimates: list[Any], training: object) -> Found:
    """mir_eval's scores of beats, and the F-measure of the downbeats among them."""
    table: Table = {name: [] for name in (*BEATS, "downbeat_f_measure")}
    # The file of an estimate without beats cannot say whether they would have had bars: the others of the split can.
    without_bars = any(bars is None and len(times) > 0 for times, bars in estimates)
    for (wanted, wanted_bars), (found, found_bars) in zip(references, estimates, strict=True):
        if len(trimmed(wanted)) < 2 or len(trimmed(found)) < 2:
            values = dict.fromkeys(BEATS, math.nan if len(trimmed(wanted)) < 2 else 0.0)
        else:
            scores = mir_eval.beat.evaluate(wanted, found)
            values = {name: scores[key] for name, key in BEATS.items()}
        for name, value in values.items():
            table[name].append(value)
        is_known = wanted_bars is not None and not without_bars
        table["downbeat_f_measure"].append(f_measure(wanted_bars, bars_of(found_bars)) if is_known else math.nan)
    return table, {}


def downbeat(references: list[Any], estimates: list[Any], training: object) -> Found:
    """F-measure and continuity of downbeats; continuity needs two in the reference."""
    table: Table = {"f_measure": [], "cmlt": [], "amlt": []}
    for (_, wanted), (_, heard) in zip(references, estimates, strict=True):
        found = bars_of(heard)
        table["f_measure"].append(math.nan if wanted is None else f_measure(wanted, found))
        few = wanted is None or len(trimmed(wanted)) < 2
        continuity = (math.nan if few else 0.0,) * 4
        if not few and len(trimmed(found)) > 1:
            continuity = mir_eval.beat.continuity(trimmed(wanted), trimmed(found))
        table["cmlt"].append(continuity[1])
        table["amlt"].append(continuity[3])
    return table, {}


def bars_of(downbeats: np.ndarray | None) -> np.ndarray:
    """Times of downbeats; none where no bars are given."""
    return np.empty(0) if downbeats is None else downbeats


def trimmed(times: np.ndarray) -> np.ndarray:
    """Times from 5 s on."""
    return times[times >= 5.0]


def f_measure(wanted: np.ndarray, found: np.ndarray) -> float:
    """F-measure within 70 ms; NaN without reference, 0 without estimates."""
    wanted, found = trimmed(wanted), trimmed(found)
    if len(wanted) == 0 or len(found) == 0:
        return math.nan if len(wanted) == 0 else 0.0
    return float(mir_eval.beat.f_measure(wanted, found))


def onset(references: list[np.ndarray], estimates: list[np.ndarray], training: object) -> Found:
    """F-measure, precision and recall within 50 ms."""
    table: Table = {"f_measure": [], "precision": [], "recall": []}
    for wanted, found in zip(references, estimates, strict=True):
        values = (math.nan if len(wanted) == 0 else 0.0,) * 3
        if len(wanted) and len(found):
            values = mir_eval.onset.f_measure(wanted, found, window=0.05)
        for name, value in zip(table, values, strict=True):
            table[name].append(value)
    return table, {}


def key(references: list[str], estimates: list[str], training: object) -> Found:
    """mir_eval's weighted score, and how often the key is exact."""
    pairs = zip(references, estimates, strict=True)
    weighted = [mir_eval.key.weighted_score(key_of(wanted), key_of(found)) for wanted, found in pairs]
    return {"weighted": weighted, "accuracy": [float(score == 1) for score in weighted]}, {}


def tempo(references: list[Any], estimates: list[list[float]], training: object) -> Found:
    """Both accuracies at 4 %, and mir_eval's scores at 8 % against the tempo and its half."""
    table: Table = {name: [] for name in ("accuracy1", "accuracy2", "p_score", "one_correct", "both_correct")}
    for (beats, _), (slow, fast, weight) in zip(references, estimates, strict=True):
        values: Sequence[float] = (math.nan,) * 5
        if len(beats) > 1:
            wanted, answer = 60 / np.median(np.diff(beats)), slow if weight > 0.5 else fast
            hits = [abs(answer - k * wanted) <= 0.04 * k * wanted for k in (1, 2, 3, 1 / 2, 1 / 3)]
            pair = np.array([wanted / 2, wanted])
            values = (hits[0], any(hits), *mir_eval.tempo.detection(pair, 0.0, np.array([slow, fast])))
        for name, value in zip(table, values, strict=True):
            table[name].append(float(value))
    return table, {}


def read_key(path: Path) -> str:
    """The one line of a key estimate."""
    return path.read_text().strip()


def read_tempi(path: Path) -> list[float]:
    """Slow tempo, fast tempo and the weight of the slow one."""
    return [float(field) for field in lines_of(path)[0]]


SCORERS: dict[str, Callable[[Any, Any, Any], Found]] = {
    scorer.__name__: scorer for scorer in (tagging, chord, beat, downbeat, tempo, onset, key)
}
READERS: dict[str, Callable[[Path], Any]] = {"chords": read_chords, "beats": read_beats, "onsets": read_onsets}
ESTIMATES: dict[str, Callable[[Path], Any]] = {
    ".lab": read_chords,
    ".beats": read_beats,
    ".txt": read_onsets,
    ".key": read_key,
    ".tempo": read_tempi,
}


class Corpus:
    """Tracks of one or more manifest folders."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.tracks = [track for root in roots for track in read_manifest(root)]

    def annotated(self, split: str, name: str) -> tuple[list[str], list[Any]]:
        """Ids and annotations of the tracks of a split that have both annotation and audio."""
        usable = [
            track
            for track in self.tracks
            if track["split"] == split and track.get(name) is not None and track["audio"].is_file()
        ]
        values = [READERS[name](track[name]) if name in READERS else track[name] for track in usable]
        return [track["track_id"] for track in usable], values


def recomputed(run: Path, row: dict[str, Any], corpus: Corpus) -> tuple[list[str], Found]:
    """Test tracks and scores of a row; a task without a scorer of its own is a classification by that label."""
    task = row["task"]
    annotation = ANNOTATIONS.get(task, task)
    track_ids, references = corpus.annotated("test", annotation)
    _, training = corpus.annotated("train", annotation)
    suffix = SUFFIXES.get(task, ".csv")
    cell = f"{task}_{row['readout']}_layer{row['layer']}_seed{row['seed']}"
    folder = run / "estimates" / row["backbone"]["kind"] / row["decoder"]["name"] / cell
    read = ESTIMATES.get(suffix, read_probabilities)
    estimates = [read(folder / f"{track_id}{suffix}") for track_id in track_ids]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mir_eval mentions empty and odd input; what it counts as is decided here
        return track_ids, SCORERS.get(task, classes)(references, estimates, training)


def differences(run: Path, row: dict[str, Any], corpus: Corpus, lines: list[dict[str, str]]) -> Iterator[Any]:
    """Name and difference of every score of a row; infinite where one side lacks it."""
    track_ids, (table, whole) = recomputed(run, row, corpus)
    yield "split.scored", abs(row["split"]["scored"] - len(track_ids))
    means = {name: np.array(values) for name, values in table.items()}
    scores = {name: values[~np.isnan(values)].mean() for name, values in means.items() if not np.isnan(values).all()}
    scores |= {name: value for name, value in whole.items() if not math.isnan(value)}
    for name in sorted(scores.keys() | row["scores"].keys()):
        written = row["scores"].get(name, {}).get("mean")
        yield name, distance(scores.get(name, math.nan), math.nan if written is None else written)
        if name in means and name in row["scores"]:
            yield f"{name}.n", abs(row["scores"][name]["n"] - int((~np.isnan(means[name])).sum()))
    by_track = {(line["track_id"], line["metric"]): float(line["value"] or "nan") for line in lines}
    for name in scores.keys() & means.keys():
        for track_id, value in zip(track_ids, table[name], strict=True):
            yield f"{name} of {track_id}", distance(value, by_track.get((track_id, name), math.inf))


def distance(one: float, other: float) -> float:
    """Absolute difference; 0 where both are undefined, infinite where one is."""
    if math.isnan(one) and math.isnan(other):
        return 0.0
    return math.inf if math.isnan(one) or math.isnan(other) else abs(one - other)


def lines_of_row(row: dict[str, Any], lines: list[dict[str, str]]) -> list[dict[str, str]]:
    """Lines of ``per_track.csv`` that belong to a row."""
    cell = {name: str(row[name]) for name in ("task", "readout", "layer", "seed")}
    cell |= {"decoder": row["decoder"]["name"], "backbone": row["backbone"]["kind"]}
    return [line for line in lines if cell.items() <= line.items()]


def report(run: Path, row: dict[str, Any], corpus: Corpus, lines: list[dict[str, str]]) -> float:
    """Print the largest difference of a row, and return it."""
    try:
        found = list(differences(run, row, corpus, lines_of_row(row, lines)))
    except (OSError, ValueError, KeyError) as error:
        found = [(f"nothing: {type(error).__name__} {error}", math.inf)]
    name, largest = max(found, key=lambda pair: pair[1])
    cell = f"{row['task']} {row['backbone']['kind']} {row['readout']} layer {row['layer']} seed {row['seed']}"
    print(f"{largest:8.1e}  {cell} {row['decoder']['name']}: of {len(found)} numbers the largest, in {name}")
    return float(largest)


def main(arguments: Sequence[str] | None = None) -> int:
    """Recompute every selected row of a run; 0 if all agree."""
    parser = argparse.ArgumentParser(description="Recompute the scores of a probe run from what it wrote down.")
    parser.add_argument("run", type=Path, help="folder of a finished probe run")
    parser.add_argument("corpus_root", type=Path, nargs="+", help="the manifest folder it was scored on")
    given = parser.parse_args(arguments)
    corpus = Corpus(given.corpus_root)
    with open(given.run / "per_track.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    rows = [json.loads(line) for line in (given.run / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    selected = [row for row in rows if row["selected"]]
    largest = max((report(given.run, row, corpus, lines) for row in selected), default=math.inf)
    verdict = "all recomputed" if largest <= TOLERANCE else "NOT recomputed"
    print(f"{largest:8.1e}  {verdict}: {len(selected)} selected rows of {len(rows)}, tolerance {TOLERANCE:g}")
    return 0 if largest <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
