"""What positions alone explain: variance of tokens and attention on music, noise, silence, clicks, a chord, a scale.

Shapes:  E excerpts   T tokens of an excerpt   D features

Tokens (E, T, D) vary with their place in the excerpt (the same for all excerpts), with the excerpt (the same for all
its tokens: timbre, key, level) and with both together (what happens when). The three shares add up to 1; they are
corrected for chance as variance components are, so that independent noise has a share of 0 in the first two.

References:
    S. R. Searle, G. Casella, C. E. McCulloch, "Variance components", 1992: two-way layout with one value a cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from musictf.audio.io import audio_info, read_excerpt
from musictf.datasets.base import Track
from musictf.inspection.attention import flux_of
from musictf.inspection.attention_curves import onset_curves
from musictf.inspection.events import Floats
from musictf.inspection.head_scores import score_track
from musictf.inspection.inspected_models import Corpus, InspectedModel
from musictf.inspection.inspection_rows import InspectionRows
from musictf.inspection.self_similarity import cosine_matrix, pairs_apart, standard_ranks
from musictf.inspection.stimuli import STIMULI, stimulus_tracks
from musictf.models.backbone import Backbone
from musictf.models.encoder import Output
from musictf.models.frame_controls import ChromaControl, FrameControl, MelControl
from musictf.results.names import ATTENTION_CURVES

EXCERPTS_A_TRACK = 4
_NUMBER = 24  # tracks of each stimulus
_BATCH = 16
_HALVES = 20
_GAP_SECONDS = 0.25  # pairs of tokens nearer than this are alike because windows overlap


def variance_shares(tokens: npt.NDArray[np.floating]) -> tuple[float, float, float]:
    """Shares of the variance of tokens (E, T, D) by position, by excerpt and by both together; NaN without variance.

    Example:
        >>> position = np.arange(10.0)[None, :, None].repeat(4, axis=0)
        >>> variance_shares(position)
        (1.0, 0.0, 0.0)
    """
    values = np.asarray(tokens, dtype=np.float64)
    excerpts, places = values.shape[:2]
    if min(excerpts, places) < 2:
        return (float("nan"),) * 3
    centred = values - values.mean(axis=(0, 1))
    by_place, by_excerpt = centred.mean(axis=0), centred.mean(axis=1)
    rest = centred - by_place - by_excerpt[:, None]
    within = float((rest**2).sum()) / ((excerpts - 1) * (places - 1))
    parts = np.array(
        [
            float((by_place**2).sum()) / (places - 1) - within / excerpts,
            float((by_excerpt**2).sum()) / (excerpts - 1) - within / places,
            within,
        ]
    ).clip(min=0)
    total = float(parts.sum())
    if total <= 1e-12 * float((values**2).mean()) * values.shape[2]:  # what rounding leaves
        return (float("nan"),) * 3
    return tuple(float(part / total) for part in parts)  # type: ignore[return-value]


def inspect_position(
    subjects: Sequence[InspectedModel],
    corpus: Corpus,
    ledger: InspectionRows,
    device: str = "cpu",
    stage: Callable[[str, int], Callable[[], None]] = lambda name, total: lambda: None,
) -> None:
    """Rows about music and sounds whose every moment is known; nothing is chosen, so no row is ``selected``.

    ``position``        shares of the variance of tokens, one row a subject, input and layer
    ``stimulus_onset``  areas of heads on clicks and scales, one row a subject and curve, and one of the spectral flux
    ``stimulus_ssm``    rank correlation of a layer's self-similarity with that of silence at the same layer, which only
                        positions make (``position``), and with that of chroma (``harmony``)

    Args:
        subjects: The backbone and random weights; what hears silence or noise is left out, for here all do.
        corpus: ``music``: excerpts of its test tracks.
        ledger: Takes the rows.
        device: Where backbones run.
        stage: Begins a stage of a progress bar.
    """
    first = subjects[0].backbone
    chroma = ChromaControl(first.front_end.config)
    sounds = {kind: stimulus_tracks(kind, _NUMBER, first.num_samples, first.sample_rate) for kind in STIMULI}
    for subject in (subject for subject in subjects if subject.replacement_audio is None):
        backbone = subject.backbone.to(device).eval()
        advance = stage(f"{subject.kind}: position", 1 + len(STIMULI))
        music = [(track, start) for track in corpus.tracks["test"] for start in _starts(track, backbone)]
        if music:
            owners = np.array([track.group or track.track_id for track, _ in music])
            _add_shares(subject, "music", _tokens(backbone, music), owners, ledger)
        advance()
        silence: list[npt.NDArray[np.floating]] = []  # STIMULI begin with it
        for kind, tracks in sounds.items():
            excerpts = [(track, 0) for track in tracks]
            tokens = _tokens(backbone, excerpts)
            silence = silence or tokens
            _add_shares(subject, kind, tokens, np.arange(len(tracks)), ledger)
            _add_matrices(subject, kind, tokens, silence, _tokens(chroma, excerpts)[0], ledger)
            if kind in {"clicks", "scale"}:
                _add_onsets(subject, kind, tracks, ledger)
            advance()
    _add_flux(first, {kind: sounds[kind] for kind in ("clicks", "scale")}, ledger)


def _starts(track: Track, backbone: Backbone | FrameControl) -> list[int]:
    """First samples of some whole excerpts, spread over the track."""
    last = audio_info(track.audio).num_samples(backbone.sample_rate) - backbone.num_samples
    return [] if last < 0 else sorted({round(float(start)) for start in np.linspace(0, last, EXCERPTS_A_TRACK)})


def _outputs(backbone: Backbone | FrameControl, excerpts: Sequence[tuple[Track, int]], attention: bool) -> list[Output]:
    found = []
    normalise = backbone.normalise
    device = next(backbone.buffers()).device
    with torch.inference_mode():
        for first in range(0, len(excerpts), _BATCH):
            waveforms = [
                torch.from_numpy(read_excerpt(t.audio, start, backbone.num_samples, backbone.sample_rate, normalise))
                for t, start in excerpts[first : first + _BATCH]
            ]
            batch = torch.stack(waveforms).to(device)
            found.append(backbone(batch, range(backbone.depth + 1), attention=attention))
    return found


def _tokens(backbone: Backbone | FrameControl, excerpts: Sequence[tuple[Track, int]]) -> list[npt.NDArray[np.floating]]:
    """Sequence tokens of excerpts, (E, T, D), of each layer."""
    outputs = _outputs(backbone, excerpts, attention=False)
    layers = range(backbone.depth + 1)
    return [torch.cat([output.sequence[layer] for output in outputs]).float().cpu().numpy() for layer in layers]


def _add_shares(
    subject: InspectedModel,
    name: str,
    tokens: Sequence[npt.NDArray[np.floating]],
    owners: npt.NDArray[Any],
    ledger: InspectionRows,
) -> None:
    rng = np.random.default_rng(0)
    groups = np.unique(owners)
    for layer, values in enumerate(tokens):
        shares = np.array(variance_shares(values))
        # Halves of the groups, drawn without return, spread like means of the whole; an excerpt that is drawn twice
        # would agree with itself.
        halves = [np.isin(owners, rng.permutation(groups)[: max(2, len(groups) // 2)]) for _ in range(_HALVES)]
        spread = 1.96 * np.std([variance_shares(values[half]) for half in halves], axis=0)
        low, high = np.maximum(shares - spread, 0), np.minimum(shares + spread, 1)
        names = ("position_share", "excerpt_share", "content_share")
        whole = {n: (float(shares[k]), float(low[k]), float(high[k])) for k, n in enumerate(names)}
        number = range(len(values))
        ledger.add(
            "position", subject, name, layer, {}, number, selected=False, dataset=f"stimulus:{name}", whole=whole
        )


def _add_matrices(
    subject: InspectedModel,
    kind: str,
    tokens: Sequence[npt.NDArray[np.floating]],
    silence: Sequence[npt.NDArray[np.floating]],
    chroma: npt.NDArray[np.floating],
    ledger: InspectionRows,
) -> None:
    """Each layer's self-similarity within an excerpt beside that of silence and of chroma."""
    gap = max(1, round(_GAP_SECONDS * subject.backbone.grid.token_rate))
    pairs = pairs_apart(chroma.shape[1], gap)
    harmony = [standard_ranks(cosine_matrix(each.astype(np.float64))[pairs]) for each in chroma]
    for layer, values in enumerate(tokens):
        position = standard_ranks(cosine_matrix(silence[layer][0].astype(np.float64))[pairs])
        own = [standard_ranks(cosine_matrix(each.astype(np.float64))[pairs]) for each in values]
        ledger.add(
            "stimulus_ssm",
            subject,
            kind,
            layer,
            {
                "position": np.array([float(ranks @ position) for ranks in own]),
                "harmony": np.array([float(ranks @ wanted) for ranks, wanted in zip(own, harmony, strict=True)]),
            },
            range(len(values)),
            selected=False,
            dataset=f"stimulus:{kind}",
        )


def _add_flux(backbone: Backbone | FrameControl, sounds: dict[str, list[Track]], ledger: InspectionRows) -> None:
    """What the spectral flux makes of sounds whose onsets are known."""
    mel = MelControl(backbone.front_end.config)
    about = {"path": "flux", "digest": backbone.front_end.config.digest(), "kind": "classical"}
    for kind, tracks in sounds.items():
        frames = _tokens(mel, [(track, 0) for track in tracks])[0]
        times = backbone.front_end.config.frame_times(frames.shape[1])
        areas = [
            score_track(flux_of(values)[:, None], times, track.labels["onsets"], track.track_id, 0).area[0]
            for values, track in zip(frames, tracks, strict=True)
        ]
        name = f"stimulus:{kind}"
        number = range(len(tracks))
        ledger.add("stimulus_onset", about, "flux", 0, {"auc": np.array(areas)}, number, selected=False, dataset=name)


def _add_onsets(subject: InspectedModel, kind: str, tracks: Sequence[Track], ledger: InspectionRows) -> None:
    """Areas of every head on sounds whose onsets are known; the median and the highest of them, by curve."""
    outputs = _outputs(subject.backbone, [(track, 0) for track in tracks], attention=True)
    maps = [
        torch.stack([onset_curves(output.attention[layer].float()) for layer in sorted(output.attention)], dim=1)
        for output in outputs
    ]
    curves = torch.cat(maps).permute(0, 4, 1, 2, 3).flatten(2).cpu().numpy()  # (E, T, U)
    times = subject.backbone.grid.times(curves.shape[1])
    areas = np.array(
        [score_track(c, times, t.labels["onsets"], t.track_id, 0).area for c, t in zip(curves, tracks, strict=True)]
    )
    units: Floats = areas.reshape(len(areas), -1, len(ATTENTION_CURVES))
    for place, curve in enumerate(ATTENTION_CURVES):
        best = int(units[:, :, place].mean(axis=0).argmax())
        ledger.add(
            "stimulus_onset",
            subject,
            curve,
            best // subject.backbone.num_heads + 1,
            {
                "median_auc_of_heads": np.median(units[:, :, place], axis=1),
                "highest_auc_of_heads": units[:, best, place],
            },
            range(len(tracks)),
            selected=False,
            dataset=f"stimulus:{kind}",
            head=best % subject.backbone.num_heads,
        )
