"""What pictures and pages are made of: curves and matrices of single tracks, in files that need no torch to read.

``tracks/<track_id>.npz`` holds, with N tokens, S bins, L + 1 layers and F mel bands:

``times (N,)`` seconds   ``log_mel (N, F)`` dB   ``mel_hz (F,)``   ``flux (N,)``
``curve/<target>/<name>.l<layer>.h<head> (N,)``   the chosen head of each curve
``event/<target> (n,)`` seconds, of each target that the track has
``excerpt_times (E,)`` seconds   ``class_ssm/<layer> (E, E)``, of class tokens, one an excerpt: for long tracks
``bin_times (S,)`` seconds   ``ssm/<layer> (S, S)``   ``dimension/<name> (S, S)``, NaN where nothing is known
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import librosa
import numpy as np
import numpy.typing as npt

from musictf.features.extract import FeatureConfig, extract
from musictf.inspection.attention import flux_of
from musictf.inspection.attention_curves import read_curves, track_curves
from musictf.inspection.binned_tracks import SimilarityConfig, layers_of, views
from musictf.inspection.dimensions import Dimension
from musictf.inspection.events import events_of
from musictf.inspection.inspected_models import Corpus, InspectedModel
from musictf.inspection.inspection_rows import write_arrays
from musictf.inspection.self_similarity import cosine_matrix
from musictf.models.frame_controls import MelControl
from musictf.results.names import ATTENTION_CURVES
from musictf.results.rows import RESULTS, read_rows

NUMBER = 3  # test tracks that are kept for pictures
FOLDER = "tracks"


def write_track_arrays(
    subject: InspectedModel,
    corpus: Corpus,
    folder: Path,
    features: FeatureConfig,
    config: SimilarityConfig,
    device: str,
    number: int = NUMBER,
) -> list[Path]:
    """Write ``tracks/<track_id>.npz`` of the first test tracks.

    Args:
        subject: The backbone.
        corpus: Whose test tracks.
        folder: The run folder, with rows.
        features: How tracks are cut.
        config: How matrices are made.
        device: Where the backbone runs.
        number: How many tracks.
    """
    tracks = corpus.tracks["test"][:number]
    chosen = _chosen_heads(folder)
    targets = dict.fromkeys(name.partition("/")[0] for name in chosen)
    front_end = subject.backbone.front_end.config
    mels = extract(MelControl(front_end), tracks, [0], features, device)
    paths = track_curves(subject.backbone, tracks, features, device)
    tokens = extract(subject.backbone, tracks, list(range(subject.backbone.depth + 1)), features, device)
    layers = layers_of(subject, tracks, features, device, lambda: None)
    edges = librosa.mel_frequencies(n_mels=front_end.n_mels + 2, fmin=front_end.f_min, fmax=front_end.f_max)
    hertz = edges[1:-1]  # a band rises from the centre of the one below and falls to that of the one above
    written = []
    for place, view in enumerate(views(tracks, subject, config, features, device)):
        mel = mels[place].sequence[:, 0].float().numpy()
        arrays: dict[str, npt.NDArray[Any]] = {"times": mels[place].times.numpy(), "log_mel": mel, "mel_hz": hertz}
        arrays["flux"] = flux_of(mel)
        curves = read_curves(paths[place])
        for name, (layer, head, curve) in chosen.items():
            arrays[f"curve/{name}"] = curves.values[:, layer - 1, head, curve]
        events = {target: events_of(tracks[place], target) for target in targets}
        arrays |= {f"event/{target}": times for target, times in events.items() if times is not None}
        arrays["excerpt_times"] = tokens[place].excerpt_times.numpy()
        for layer, classes in enumerate(tokens[place].class_token.double().numpy().transpose(1, 0, 2)):
            arrays[f"class_ssm/{layer}"] = cosine_matrix(classes).astype(np.float32)
        arrays["bin_times"] = view.times
        for layer, values in enumerate(layers(place, view)):
            arrays[f"ssm/{layer}"] = cosine_matrix(values).astype(np.float32)
        for name, dimension in view.dimensions.items():
            arrays[f"dimension/{name}"] = _whole(dimension)
        path = folder / FOLDER / f"{tracks[place].track_id}.npz"
        write_arrays(path, arrays)
        written.append(path)
    return written


def _chosen_heads(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Layer, head and curve that validation chose for each target of the backbone, by a name that tells them."""
    rows = read_rows(folder / RESULTS)
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


def _whole(dimension: Dimension) -> npt.NDArray[np.float32]:
    """A dimension's matrix over all bins, NaN where it is not known."""
    matrix = np.full((len(dimension.known),) * 2, np.nan, dtype=np.float32)
    matrix[np.ix_(dimension.known, dimension.known)] = dimension.matrix
    return matrix
