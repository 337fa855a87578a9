"""Results of ``musictf inspect`` for readers: tables with baselines, figures, and pages to listen to.

Everything is made from the run folder (``results.jsonl``, ``per_track.csv``, ``token_maps.npz``, ``tracks/*.npz``);
pages also need the audio. Parts that were not inspected are left out.

Shapes:  N token centres   F mel bands   M bins of a self-similarity matrix
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from musictf.annotations import read_beats, read_chords
from musictf.errors import InputError
from musictf.reporting.attention_curve_figure import attention_curves, curve_label
from musictf.reporting.attention_figures import attention_map
from musictf.reporting.inspection_reader import (
    ATTENTION,
    MAPS,
    POSITION,
    PROFILE,
    Arrays,
    Inspection,
    read_arrays,
    required,
)
from musictf.reporting.inspection_tables import sections
from musictf.reporting.listening import ListeningTrack, listening_page
from musictf.reporting.similarity_figures import position_figure, profile_figure, similarity_panel
from musictf.reporting.token_map_figures import token_map_figure
from musictf.results.statistics import Floats

if TYPE_CHECKING:
    from musictf.annotations import Beats, Chords
    from musictf.datasets.base import Track

SAMPLE_RATE = 16_000  # of pages, in hertz
TRACKS, MAPS_FILE, FIGURES, LISTEN = "tracks", "token_maps.npz", "figures", "listen"
_PAGE = ("times", "log_mel", "mel_hz")


def inspection_text(folder: Path) -> str:
    """Markdown: tables of every part, an explanation of their numbers, and the baselines that win.

    Args:
        folder: The run folder of an inspection.

    Raises:
        InputError: it holds no rows of an inspection, or one that cannot be read.
    """
    inspection = Inspection.read(folder)
    about = (
        "Means over test tracks with 95 % intervals: of one seed over groups of tracks; of several over tracks and "
        "seeds, or means of their own bounds where no scores of single tracks were kept. *Random* has the same shape "
        "and no training; *silence* and *noise* are the backbone with silence or noise in place of the music. A "
        "finding counts only where it is above all of these and the intervals do not overlap. "
    )
    if rows := [row for row in inspection.rows if not row["dataset"].startswith("stimulus:")]:
        most = max(rows, key=lambda row: row["split"]["scored"])["split"]
        about += f"Backbone: `{rows[0]['backbone']['path']}`. Test tracks: {most['scored']} of {most['expected']}"
        about += f" in {most['groups']} groups" if "groups" in most else ""
        fewest = min(row["split"]["scored"] for row in rows)
        with_fewer = sorted({row["readout"] for row in rows if row["split"]["scored"] < most["scored"]})
        about += f"; as few as {fewest} for {', '.join(with_fewer)}." if with_fewer else "."
    title = f"# Inspection of {inspection.backbone_name} on {inspection.dataset}"
    return "\n\n".join([title, about, *sections(inspection)]) + "\n"


def inspection_pictures(folder: Path) -> list[Path]:
    """Draw every figure that rows and files allow, in ``figures/``.

    Args:
        folder: The run folder of an inspection.

    Returns:
        The PNG files; an SVG lies beside each.

    Raises:
        InputError: rows or files cannot be read, or lack what this version draws.
    """
    inspection, out = Inspection.read(folder), folder / FIGURES
    paths = []
    if inspection.tasks(ATTENTION):
        paths += attention_map(inspection, out / "attention")
    if inspection.of(PROFILE):
        paths += profile_figure(inspection, out / "profile")
        paths += profile_figure(inspection, out / "profile_cka", score="cka_above_shifted")
    if inspection.of(POSITION):
        paths += position_figure(inspection, out / "position")
    if inspection.of(MAPS) and (folder / MAPS_FILE).is_file():
        arrays = read_arrays(folder / MAPS_FILE)
        for view in inspection.values("readout", MAPS):
            paths += token_map_figure(inspection, arrays, view, out / f"tokens_{view}")
    # One track is enough for a picture; pages show them all.
    for path in sorted((folder / TRACKS).rglob("*.npz"))[:1]:
        paths += _track_pictures(inspection, path, out)
    return [path for path in paths if path.suffix == ".png"]


def inspection_pages(folder: Path, tracks: Sequence[Track], probes: Sequence[Path] = ()) -> list[Path]:
    """Write a page to listen to for each track whose curves and matrices were kept.

    Args:
        folder: The run folder of an inspection.
        tracks: Tracks of its test split; those without a file in ``tracks/`` get no page.
        probes: Probe runs whose estimates of chords and beats are shown below the annotated ones.

    Returns:
        The pages, ``listen/<track_id>.html``.

    Raises:
        InputError: a file or the audio of a track cannot be read.
    """
    inspection = Inspection.read(folder)
    subtitle = f"{inspection.dataset} · {inspection.backbone_name}"
    files = [(track, folder / TRACKS / f"{track.track_id}.npz") for track in tracks]
    return [_page(track, path, folder / LISTEN, subtitle, probes) for track, path in files if path.is_file()]


def _track_pictures(inspection: Inspection, path: Path, out: Path) -> list[Path]:
    arrays = read_arrays(path)
    paths = []
    try:
        if any(name.startswith("curve/") for name in arrays):
            paths += attention_curves(inspection, arrays, out / "attention_curves", path.stem)
        if any(name.startswith("ssm/") for name in arrays):
            paths += similarity_panel(arrays, out / "similarity", path.stem)
        return paths
    except InputError as error:  # they name the array that is missing, but not the file
        raise InputError(f"{path}: {error}") from error


def _page(track: Track, path: Path, out: Path, subtitle: str, probes: Sequence[Path]) -> Path:
    # Imported here, because both import torch and tables and figures do not need it.
    from musictf.audio.io import audio_info, read_excerpt
    from musictf.reporting.run_figures import estimate_files

    arrays = read_arrays(path)
    required(arrays, _PAGE, path)
    num_samples = audio_info(track.audio).num_samples(SAMPLE_RATE)
    chords: dict[str, Chords] = {}
    if (annotated_chords := track.annotation("chords")) is not None:
        chords["chords"] = annotated_chords
    beats: dict[str, Beats] = {}
    if (annotated_beats := track.annotation("beats")) is not None:
        beats["beats"] = annotated_beats
    for decoder, file in estimate_files(probes, "chord", f"{track.track_id}.lab").items():
        chords[f"estimated, {decoder}"] = read_chords(file)
    for decoder, file in estimate_files(probes, "beat", f"{track.track_id}.beats").items():
        beats[f"estimated, {decoder.replace('_', ' ')}"] = read_beats(file)
    page = ListeningTrack(
        title=track.track_id,
        subtitle=subtitle,
        waveform=read_excerpt(track.audio, 0, num_samples, SAMPLE_RATE),
        sample_rate=SAMPLE_RATE,
        log_mel=arrays["log_mel"].T,
        mel_times=arrays["times"],
        mel_hz=arrays["mel_hz"],
        chords=chords,
        beats=beats,
        onsets=_events(track, arrays),
        curves=_curves(arrays),
        matrices=_matrices(arrays),
    )
    return listening_page(page, out / f"{track.track_id}.html")


def _events(track: Track, arrays: Arrays) -> dict[str, Floats]:
    """Lanes of events, times in seconds (N,): annotated onsets, and events of the file that no other lane shows."""
    onsets = track.annotation("onsets")
    lanes = {} if onsets is None else {"onsets": onsets}
    for name in (name for name in arrays if name.startswith("event/")):
        target = name.removeprefix("event/")
        # Beats and downbeats have a lane of their own, and events among beats are a part of those.
        if target not in {"onset", "beat", "downbeat"} and not target.endswith("_among_beats"):
            lanes[f"{target.replace('_', ' ')}s"] = np.unique(arrays[name])
    return lanes


def _curves(arrays: Arrays) -> dict[str, tuple[Floats, Floats]]:
    """Lanes of curves: times (N,) and values (N,) of the chosen heads and of the spectral flux."""
    targets: dict[str, list[str]] = defaultdict(list)
    for name in (name for name in arrays if name.startswith("curve/")):
        targets[name.rpartition("/")[2]].append(name)
    lanes = {}
    for names in targets.values():
        # Often one head is chosen for several targets: one lane, named after all of them, such as
        # "received, layer 2 head 1 (beat, downbeat)".
        listed = ", ".join(name.split("/")[1].replace("_", " ") for name in names)
        lanes[f"{curve_label(names[0]).partition(' · ')[2]} ({listed})"] = arrays[names[0]]
    lanes |= {"spectral flux (dB a frame)": arrays["flux"]} if "flux" in arrays else {}
    return {name: (arrays["times"], values) for name, values in lanes.items()}


def _matrices(arrays: Arrays) -> dict[str, tuple[Floats, Floats]]:
    """Times (M,) and matrices (M, M): layers, then dimensions without their undefined bins, which the label counts."""
    matrices = {}
    for name in (name for name in arrays if name.startswith("ssm/")):
        matrices[f"layer {name.removeprefix('ssm/')}"] = arrays["bin_times"], arrays[name]
    for name in (name for name in arrays if name.startswith("dimension/")):
        # A bin is undefined where its whole row is.
        defined_bins = np.flatnonzero(~np.isnan(arrays[name]).all(axis=1))
        matrix, undefined = arrays[name][np.ix_(defined_bins, defined_bins)], len(arrays[name]) - len(defined_bins)
        if len(defined_bins) < 2:  # nothing to compare
            continue
        label = name.removeprefix("dimension/")
        label += f" ({undefined} of {len(arrays[name])} bins unknown, left out)" if undefined else ""
        largest = float(np.abs(matrix).max())
        if largest > 1.001:  # a difference in decibels, no cosine: scaled to the range of the colours
            label, matrix = f"{label}, minus the difference over the largest, {largest:.1f} dB", matrix / largest
        matrices[label] = arrays["bin_times"][defined_bins], matrix
    return matrices
