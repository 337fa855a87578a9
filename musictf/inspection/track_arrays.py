"""Curves and matrices of single tracks, in files that figures and pages read without torch.

``tracks/<track_id>.npz`` holds, with N tokens, S bins, E excerpts, F mel bands and n events:

``times (N,)`` seconds   ``log_mel (N, F)`` dB   ``mel_hz (F,)``   ``flux (N,)``
``curve/<target>/<name>.l<layer>.h<head> (N,)``   the chosen head of each curve
``event/<target> (n,)`` seconds, of each target that the track has
``excerpt_times (E,)`` seconds   ``class_ssm/<layer> (E, E)``, of class tokens, one an excerpt: for long tracks
``bin_times (S,)`` seconds   ``ssm/<layer> (S, S)``   ``dimension/<name> (S, S)``, NaN where unknown
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import librosa
import numpy as np
import numpy.typing as npt

from musictf.features.extract import extract
from musictf.inspection.attention_curves import read_curves, track_curves
from musictf.inspection.binned_tracks import SimilarityConfig, binned_tracks, layers_of
from musictf.inspection.context import InspectionContext
from musictf.inspection.events import events_of
from musictf.inspection.inspected_models import InspectedModel, baseline
from musictf.inspection.inspection_rows import write_arrays
from musictf.inspection.self_similarity import cosine_matrix
from musictf.inspection.spectral_flux import flux_of
from musictf.results.names import ATTENTION_CURVES
from musictf.results.rows import RESULTS, read_rows

NUMBER = 3  # test tracks whose arrays are kept for figures
FOLDER = "tracks"


def write_track_arrays(
    context: InspectionContext, model: InspectedModel, config: SimilarityConfig, number: int = NUMBER
) -> list[Path]:
    """Write ``tracks/<track_id>.npz`` of the first test tracks.

    Args:
        context: What the inspection shares; the run folder already holds the rows.
        model: The backbone.
        config: How matrices are made.
        number: How many tracks.

    Returns:
        The files written.
    """
    tracks, features, device = context.corpus.tracks["test"][:number], context.features, context.device
    chosen = _chosen_heads(context.rows.folder)
    targets = dict.fromkeys(name.partition("/")[0] for name in chosen)
    front_end = model.backbone.baseline_front_end
    mels = extract(baseline("mel", front_end).backbone, tracks, [0], features, device)
    paths = track_curves(model.backbone, tracks, features, device)
    tokens = extract(model.backbone, tracks, list(range(model.backbone.depth + 1)), features, device)
    layers = layers_of(context, model, tracks)
    edges = librosa.mel_frequencies(n_mels=front_end.n_mels + 2, fmin=front_end.f_min, fmax=front_end.f_max)
    mel_hz = edges[1:-1]  # a band rises from the centre of the one below and falls to that of the one above
    written = []
    for index, binned_track in enumerate(binned_tracks(context, tracks, model, config)):
        mel = mels[index].sequence[:, 0].float().numpy()  # (N, F)
        arrays: dict[str, npt.NDArray[Any]] = {"times": mels[index].times.numpy(), "log_mel": mel, "mel_hz": mel_hz}
        arrays["flux"] = flux_of(mel)
        curves = read_curves(paths[index])
        for name, (layer, head, curve) in chosen.items():
            arrays[f"curve/{name}"] = curves.values[:, layer - 1, head, curve]
        events = {target: events_of(tracks[index], target) for target in targets}
        arrays |= {f"event/{target}": times for target, times in events.items() if times is not None}
        arrays["excerpt_times"] = tokens[index].excerpt_times.numpy()
        class_tokens = tokens[index].class_token.double().numpy().transpose(1, 0, 2)  # (L, E, D)
        for layer, values in enumerate(class_tokens):
            arrays[f"class_ssm/{layer}"] = cosine_matrix(values).astype(np.float32)
        arrays["bin_times"] = binned_track.times
        for layer, values in enumerate(layers(index, binned_track)):
            arrays[f"ssm/{layer}"] = cosine_matrix(values).astype(np.float32)
        for name, dimension in binned_track.dimensions.items():
            matrix = np.full((len(dimension.known),) * 2, np.nan, dtype=np.float32)
            matrix[np.ix_(dimension.known, dimension.known)] = dimension.matrix
            arrays[f"dimension/{name}"] = matrix
        path = context.rows.folder / FOLDER / f"{tracks[index].track_id}.npz"
        write_arrays(path, arrays)
        written.append(path)
    return written


def _chosen_heads(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Layer, head and index of the curve of the backbone's chosen heads, by the name of the array."""
    rows = read_rows(folder / RESULTS)
    # The first row belongs to the backbone. With `backbone=random` its controls have the same kind and other seeds.
    first = next(((row["backbone"]["kind"], row["seed"]) for row in rows), None)
    return {
        f"{row['task'].removeprefix('attention_')}/{row['readout']}.l{row['layer']}.h{row['head']}": (
            row["layer"],
            row["head"],
            ATTENTION_CURVES.index(row["readout"]),
        )
        for row in rows
        if row["task"].startswith("attention_")
        and row["selected"]
        and row["readout"] in ATTENTION_CURVES
        and (row["backbone"]["kind"], row["seed"]) == first
    }
