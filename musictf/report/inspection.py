"""What ``musictf inspect`` shows of what it found: tables with their baselines, figures, and pages to listen to.

Conventions: everything is made of the run folder alone (``results.jsonl``, ``per_track.csv``, ``token_maps.npz``,
``tracks/*.npz``), only pages need the audio as well. Parts that were not inspected are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from musictf.annotations import read_beats, read_chords
from musictf.errors import InputError
from musictf.report.attention_figures import attention_map
from musictf.report.inspection_rows import ATTENTION, MAPS, POSITION, PROFILE, Arrays, Inspection, read_arrays, required
from musictf.report.inspection_tables import sections
from musictf.report.listening import ListeningTrack, listening_page
from musictf.report.passage_figure import attention_curves, curve_label
from musictf.report.similarity_figures import position_figure, profile_figure, similarity_panel
from musictf.report.token_map_figures import token_map_figure
from musictf.results.statistics import Floats

if TYPE_CHECKING:
    from musictf.annotations import Beats, Chords
    from musictf.datasets.base import Track

SAMPLE_RATE = 16_000  # of pages, in hertz
TRACKS, MAPS_FILE, FIGURES, LISTEN = "tracks", "token_maps.npz", "figures", "listen"
_PAGE = ("times", "log_mel", "mel_hz")


def inspection_text(folder: Path) -> str:
    """Markdown: a table of every part, what its numbers are, and which baseline wins.

    Args:
        folder: The run folder of an inspection.

    Raises:
        InputError: it holds no rows of an inspection, or one that cannot be read.
    """
    found = Inspection.read(folder)
    about = (
        "Means over test tracks with 95 % intervals: of one seed over groups of tracks; of several over tracks and "
        "seeds, or means of their own bounds where no scores of single tracks were kept. *Random* has the same shape "
        "and no training; *silence* and *noise* are the backbone that hears nothing of the music. A finding stands "
        "only above all of them, and where intervals part. " + _basis(found)
    )
    return "\n\n".join([f"# Inspection of {found.lead_name} on {found.dataset}", about, *sections(found)]) + "\n"


def _basis(found: Inspection) -> str:
    """How many tracks the numbers rest on."""
    rows = [row for row in found.rows if not row["dataset"].startswith("stimulus:")]
    if not rows:
        return ""
    scored = sorted({row["split"]["scored"] for row in rows})
    most = max(rows, key=lambda row: row["split"]["scored"])["split"]
    text = f"Backbone: `{rows[0]['backbone']['path']}`. Test tracks: {most['scored']} of {most['expected']}"
    text += f" in {most['groups']} groups" if "groups" in most else ""
    few = sorted({row["readout"] for row in rows if row["split"]["scored"] < most["scored"]})
    return text + (f"; as few as {scored[0]} for {', '.join(few)}." if few else ".")


def inspection_pictures(folder: Path) -> list[Path]:
    """Every figure that rows and files allow, in ``figures/``.

    Args:
        folder: The run folder of an inspection.

    Returns:
        The PNG files; an SVG lies beside each.

    Raises:
        InputError: rows or files cannot be read, or lack what this version draws.
    """
    found, out = Inspection.read(folder), folder / FIGURES
    paths = []
    if found.tasks(ATTENTION):
        paths += attention_map(found, out / "attention")
    if found.of(PROFILE):
        paths += profile_figure(found, out / "profile")
        paths += profile_figure(found, out / "profile_cka", score="cka_above_shifted")
    if found.of(POSITION):
        paths += position_figure(found, out / "position")
    if found.of(MAPS) and (folder / MAPS_FILE).is_file():
        arrays = read_arrays(folder / MAPS_FILE)
        for view in found.values("readout", MAPS):
            paths += token_map_figure(found, arrays, view, out / f"tokens_{view}")
    for path in sorted((folder / TRACKS).rglob("*.npz"))[:1]:
        paths += _track_pictures(found, path, out)
    return [path for path in paths if path.suffix == ".png"]


def inspection_pages(folder: Path, tracks: Sequence[Track], probes: Sequence[Path] = ()) -> list[Path]:
    """A page to listen to for each track whose curves and matrices were kept.

    Args:
        folder: The run folder of an inspection.
        tracks: Tracks of its test split; those without a file in ``tracks/`` get no page.
        probes: Probe runs whose estimates of chords and beats are shown below the annotated ones.

    Returns:
        The pages, ``listen/<track_id>.html``.

    Raises:
        InputError: a file or the audio of a track cannot be read.
    """
    name = Inspection.read(folder)
    subtitle = f"{name.dataset} · {name.lead_name}"
    files = [(track, folder / TRACKS / f"{track.track_id}.npz") for track in tracks]
    return [_page(track, path, folder / LISTEN, subtitle, probes) for track, path in files if path.is_file()]


def _track_pictures(found: Inspection, path: Path, out: Path) -> list[Path]:
    arrays = read_arrays(path)
    draw: list[Callable[[], list[Path]]] = []
    if any(name.startswith("curve/") for name in arrays):
        draw.append(lambda: attention_curves(found, arrays, out / "attention_curves", path.stem))
    if any(name.startswith("ssm/") for name in arrays):
        draw.append(lambda: similarity_panel(arrays, out / "similarity", path.stem))
    try:
        return [written for each in draw for written in each()]
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _page(track: Track, path: Path, out: Path, subtitle: str, probes: Sequence[Path]) -> Path:
    # Both import torch, which tables and figures do without.
    from musictf.audio.io import audio_info, read_excerpt
    from musictf.report.pictures import estimate_files

    arrays = read_arrays(path)
    required(arrays, _PAGE, path)
    num_samples = audio_info(track.audio).num_samples(SAMPLE_RATE)
    chords, beats = _named("chords", track.annotation("chords")), _named("beats", track.annotation("beats"))
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


def _named(name: str, value: Chords | Beats | None) -> dict[str, Any]:
    return {} if value is None else {name: value}


def _events(track: Track, arrays: Arrays) -> dict[str, Floats]:
    """Annotated onsets, and events of the file that no other lane shows."""
    onsets = track.annotation("onsets")
    lanes = {} if onsets is None else {"onsets": onsets}
    for name in (name for name in arrays if name.startswith("event/")):
        target = name.removeprefix("event/")
        if target not in {"onset", "beat", "downbeat"} and not target.endswith("_among_beats"):
            lanes[f"{target.replace('_', ' ')}s"] = np.unique(arrays[name])
    return lanes


def _curves(arrays: Arrays) -> dict[str, tuple[Floats, Floats]]:
    targets: dict[str, list[str]] = defaultdict(list)
    for name in (name for name in arrays if name.startswith("curve/")):
        targets[name.rpartition("/")[2]].append(name)
    # Often one head is chosen for several targets: one lane, named for all of them.
    lanes = {_lane_label(names): arrays[names[0]] for names in targets.values()}
    lanes |= {"spectral flux (dB a frame)": arrays["flux"]} if "flux" in arrays else {}
    return {name: (arrays["times"], values) for name, values in lanes.items()}


def _lane_label(names: Sequence[str]) -> str:
    """``beat, downbeat · received, layer 2 head 1``."""
    targets = ", ".join(name.split("/")[1].replace("_", " ") for name in names)
    return f"{curve_label(names[0]).partition(' · ')[2]} ({targets})"


def _matrices(arrays: Arrays) -> dict[str, tuple[Floats, Floats]]:
    """Layers, then dimensions; bins in which a dimension is not known are left out, and their number is said."""
    found = {}
    for name in (name for name in arrays if name.startswith("ssm/")):
        found[f"layer {name.removeprefix('ssm/')}"] = arrays["bin_times"], arrays[name]
    for name in (name for name in arrays if name.startswith("dimension/")):
        places = np.flatnonzero(~np.isnan(arrays[name]).all(axis=1))
        matrix, lacking = arrays[name][np.ix_(places, places)], len(arrays[name]) - len(places)
        if len(places) < 2:  # known in no two moments: nothing is like anything
            continue
        label = name.removeprefix("dimension/")
        label += f" ({lacking} of {len(arrays[name])} bins unknown, left out)" if lacking else ""
        largest = float(np.abs(matrix).max())
        if largest > 1.001:  # a distance in decibels, no cosine
            label, matrix = f"{label}, minus the difference over the largest, {largest:.1f} dB", matrix / largest
        found[label] = arrays["bin_times"][places], matrix
    return found
