"""Figures of a run, made from its files alone: layer maps, confusions, and one track with its estimates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import librosa
import numpy as np

from musictf.annotations import Beats, Chords, read_beats, read_chords
from musictf.files import write_atomically
from musictf.reporting.detail_figures import details_figures
from musictf.reporting.figures import layer_heatmap, training_curves
from musictf.reporting.online_figure import online_curves
from musictf.reporting.robustness import robustness_figure, robustness_table
from musictf.reporting.track_figure import AnnotatedTrack, track_figure
from musictf.results.names import KINDS, MAJORITY, ORACLE
from musictf.results.rows import RESULTS, cell_name, read_rows

if TYPE_CHECKING:
    from musictf.datasets.base import Dataset
    from musictf.tasks.base import Task

SECONDS = 16.0  # of the track that are drawn
_FIRST_SECOND = 6.0  # beats before 5 s are not scored, so they are not drawn
# Readouts of frame-level tasks in order of preference, then those of systems without a backbone.
_PREFERENCE = ("sequence", "average", "class", "audio", "constant", "targets")


def pretraining_pictures(folder: Path) -> list[Path]:
    """Loss and collapse meters of a pretraining run, and the scores of its online probe, in its ``figures/``."""
    metrics, figures = folder / "metrics.csv", folder / "figures"
    if not metrics.is_file():  # the run was too short to log anything
        return []
    return training_curves(metrics, figures / "training") + online_curves(metrics, figures / "online")


def probe_pictures(folder: Path, out: Path | None = None) -> list[Path]:
    """Layer × readout maps, confusions and scores by class of every task of a probe run.

    Args:
        folder: The run folder.
        out: Where to write; its ``figures/`` by default.

    Returns:
        The files written, PNG and SVG of each figure.
    """
    rows = read_rows(folder / RESULTS)
    probed = [row for row in rows if row["selection"]]  # the oracle and the majority answer have no layers
    target = out or folder / "figures"
    tasks = dict.fromkeys(row["task"] for row in probed)
    maps = [path for task in tasks for path in layer_heatmap(probed, task, target / f"layers_{task}")]
    return maps + [path for _, paths in details_figures(rows, target) for path in paths]


def all_probe_pictures(task: Task, dataset: Dataset, folder: Path) -> list[Path]:
    """PNG files of a probe run: layer maps, robustness curves, and one test track where estimates have times."""
    from musictf.evaluation.robustness import ROBUSTNESS  # imports torch

    pictures = probe_pictures(folder)
    if (folder / ROBUSTNESS).is_file():
        rows = read_rows(folder / ROBUSTNESS)
        write_atomically(folder / "robustness.md", robustness_table(rows, task.display_name))
        pictures += robustness_figure(rows, task.display_name, folder / "figures" / f"robustness_{task.display_name}")
    if task.suffix in {".lab", ".beats"}:
        track = next(t for t in dataset.tracks("test") if t.annotation(task.annotation_name) is not None)
        annotation = track.annotation(task.annotation_name)
        reference = (annotation, None) if task.annotation_name == "chords" else (None, annotation)
        pictures += track_picture([folder], track.track_id, track.audio, reference, folder / "figures" / "track")
    return [path for path in pictures if path.suffix == ".png"]


def track_picture(
    folders: Sequence[Path], track_id: str, audio: Path, reference: tuple[Chords | None, Beats | None], out: Path
) -> list[Path]:
    """Draw one test track: spectrogram, annotated chords and beats, and the estimates of probe runs.

    Args:
        folders: Probe runs, each with ``estimates/``.
        track_id: A track of their test split.
        audio: Its audio file.
        reference: Its annotations.
        out: Where to write, without suffix.

    Returns:
        The files written, PNG and SVG.
    """
    # Computed from the audio, because a probe run keeps no spectrogram.
    first = min(_FIRST_SECOND, max(0.0, librosa.get_duration(path=audio) - SECONDS))
    waveform, rate = librosa.load(audio, sr=16_000, offset=first, duration=SECONDS)
    power = librosa.feature.melspectrogram(y=waveform, sr=rate, n_fft=1024, hop_length=512, n_mels=96, fmax=8000)
    times = first + librosa.frames_to_time(np.arange(power.shape[1]), sr=rate, hop_length=512)
    chords = {name: read_chords(path) for name, path in estimate_files(folders, "chord", f"{track_id}.lab").items()}
    task, beats = beats_to_draw(folders, track_id, reference[1])
    estimates = [read_beats(path) for path in estimate_files(folders, task, f"{track_id}.beats").values()]
    track = AnnotatedTrack(
        log_mel=librosa.power_to_db(power, ref=np.max),
        times=times,
        mel_hz=librosa.mel_frequencies(n_mels=96, fmin=0, fmax=8000),
        chords=reference[0],
        chord_estimates=chords,
        beats=beats,
        beat_estimate=estimates[0].times if estimates else None,
    )
    return track_figure(track, out)


def beats_to_draw(folders: Sequence[Path], track_id: str, beats: Beats | None) -> tuple[str, Beats | None]:
    """The task whose estimates are drawn, and its reference: downbeats where only those are estimated.

    Args:
        folders: Probe runs.
        track_id: The track.
        beats: Its annotated beats.
    """
    downbeats, name = beats.downbeats if beats else None, f"{track_id}.beats"
    if downbeats is None or estimate_files(folders, "beat", name) or not estimate_files(folders, "downbeat", name):
        return "beat", beats
    return "downbeat", Beats(downbeats, np.ones(len(downbeats), dtype=np.int64))


def estimate_files(folders: Sequence[Path], task: str, name: str) -> dict[str, Path]:
    """Estimate files of a track by decoder: those of the probed system, from sequence tokens where they were probed.

    Args:
        folders: Probe runs; the first with an estimate of a decoder counts.
        task: Name of the task.
        name: Name of the file, ``<track_id>`` with the suffix of the task.
    """
    files: dict[str, Path] = {}
    for folder in folders:
        rows = [row for row in read_rows(folder / RESULTS) if row["selected"] and row["task"] == task]
        rows.sort(
            key=lambda row: (KINDS.index(row["backbone"]["kind"]), _PREFERENCE.index(row["readout"]), row["seed"])
        )
        for row in rows:
            kind, decoder = row["backbone"]["kind"], row["decoder"]["name"]
            path = folder / "estimates" / kind / decoder / cell_name(row) / name
            if kind not in {MAJORITY, ORACLE} and path.is_file():
                files.setdefault(decoder, path)
    return files
