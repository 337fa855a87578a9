"""What positions alone explain: variance of tokens and attention on music, noise, silence, clicks, a chord, a scale.

Shapes:  E excerpts   T tokens of an excerpt   D features   P pairs of tokens   U units (block, head, curve)

Tokens (E, T, D) vary with their position in the excerpt (the same for all excerpts), with the excerpt (the same for all
its tokens: timbre, key, level) and with both together (what happens when). The three shares add up to 1. They are
corrected for chance as variance components are, so that independent noise has a share of 0 in the first two.

References:
    S. R. Searle, G. Casella, C. E. McCulloch, "Variance components", 1992: two-way layout with one value a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from musictf.audio.io import audio_info, read_excerpt
from musictf.datasets.base import Track
from musictf.inspection.attention_curves import onset_curves
from musictf.inspection.context import InspectionContext
from musictf.inspection.events import Floats
from musictf.inspection.head_scores import score_track
from musictf.inspection.inspected_models import InspectedModel, baseline
from musictf.inspection.inspection_rows import InspectionRows
from musictf.inspection.self_similarity import cosine_matrix, pairs_apart, standard_ranks
from musictf.inspection.spectral_flux import flux_of
from musictf.inspection.stimuli import STIMULI, stimulus_tracks
from musictf.models.encoder import Encoder, Output
from musictf.results.names import ATTENTION_CURVES

EXCERPTS_A_TRACK = 4
_STIMULUS_TRACKS = 24  # of each kind
_BATCH = 16  # excerpts
_HALVES = 20  # resamples for the intervals of the shares
_GAP_SECONDS = 0.25  # windows of the spectrogram overlap: tokens nearer than this are alike for that reason
_WITH_ONSETS = ("clicks", "scale")

Tokens = npt.NDArray[np.floating]


def variance_shares(tokens: Tokens) -> tuple[float, float, float]:
    """Shares of the variance of tokens (E, T, D) by position, by excerpt and by both together; NaN without variance.

    Example:
        >>> position = np.arange(10.0)[None, :, None].repeat(4, axis=0)
        >>> variance_shares(position)
        (1.0, 0.0, 0.0)
    """
    values = np.asarray(tokens, dtype=np.float64)
    excerpts, positions = values.shape[:2]
    if min(excerpts, positions) < 2:
        return (float("nan"),) * 3
    centred = values - values.mean(axis=(0, 1))
    by_position, by_excerpt = centred.mean(axis=0), centred.mean(axis=1)  # (T, D), (E, D)
    rest = centred - by_position - by_excerpt[:, None]
    within = float((rest**2).sum()) / ((excerpts - 1) * (positions - 1))
    # Means over finitely many tokens vary by chance; the expected amount is subtracted from the first two.
    parts = np.array(
        [
            float((by_position**2).sum()) / (positions - 1) - within / excerpts,
            float((by_excerpt**2).sum()) / (excerpts - 1) - within / positions,
            within,
        ]
    ).clip(min=0)
    total = float(parts.sum())
    if total <= 1e-12 * float((values**2).mean()) * values.shape[2]:  # rounding error of equal tokens
        return (float("nan"),) * 3
    return tuple(float(part / total) for part in parts)  # type: ignore[return-value]


def inspect_position(context: InspectionContext, models: Sequence[InspectedModel]) -> None:
    """Add rows about music and about synthetic sounds with exact annotations.

    ``position``        shares of the variance of tokens, one row a model, input and layer
    ``stimulus_onset``  areas of heads on clicks and scales, one row a model and curve, and one of the spectral flux
    ``stimulus_ssm``    rank correlation of a layer's self-similarity with that of silence at the same layer, which only
                        positions make (``position``), and with that of chroma (``harmony``)

    Nothing is chosen, so no row is ``selected``.

    Args:
        context: What the inspection shares; excerpts of its test tracks are the input ``music``.
        models: The backbone and its controls. Those that read silence or noise are left out, because here all
            models do.
    """
    first = models[0].backbone
    chroma = baseline("chroma", first.baseline_front_end).backbone
    sounds = {
        kind: stimulus_tracks(kind, _STIMULUS_TRACKS, first.num_samples, first.grid.sample_rate) for kind in STIMULI
    }
    for model in (model for model in models if model.reads_music):
        backbone = model.backbone.to(context.device).eval()
        advance = context.stage(f"{model.kind}: position", 1 + len(STIMULI))
        music = []
        for track in context.corpus.tracks["test"]:
            last = audio_info(track.audio).num_samples(backbone.grid.sample_rate) - backbone.num_samples
            if last >= 0:  # whole excerpts only: padding has a position too
                starts = np.linspace(0, last, EXCERPTS_A_TRACK)
                music += [(track, start) for start in sorted({round(float(start)) for start in starts})]
        if music:
            excerpt_groups = np.array([track.group or track.track_id for track, _ in music])
            _add_shares(model, "music", _tokens(backbone, music, context.device), excerpt_groups, context.rows)
        advance()
        silence: list[Tokens] = []  # `STIMULI` begin with silence
        for kind, tracks in sounds.items():
            excerpts = [(track, 0) for track in tracks]
            tokens = _tokens(backbone, excerpts, context.device)
            silence = silence or tokens
            _add_shares(model, kind, tokens, np.arange(len(tracks)), context.rows)
            _add_matrices(model, kind, tokens, silence, _tokens(chroma, excerpts)[0], context.rows)
            if kind in _WITH_ONSETS:
                _add_onsets(model, kind, tracks, context)
            advance()
    _add_flux(baseline("flux", first.baseline_front_end), {kind: sounds[kind] for kind in _WITH_ONSETS}, context.rows)


def _outputs(
    backbone: Encoder, excerpts: Sequence[tuple[Track, int]], device: str, attention: bool = False
) -> list[Output]:
    """Outputs of all layers for excerpts, given by track and first sample, batch by batch."""
    outputs = []
    rate, normalise = backbone.grid.sample_rate, backbone.normalise
    with torch.inference_mode():
        for first in range(0, len(excerpts), _BATCH):
            waveforms = [
                torch.from_numpy(read_excerpt(t.audio, start, backbone.num_samples, rate, normalise))
                for t, start in excerpts[first : first + _BATCH]
            ]
            batch = torch.stack(waveforms).to(device)  # (B, N)
            outputs.append(backbone(batch, range(backbone.depth + 1), attention=attention))
    return outputs


def _tokens(backbone: Encoder, excerpts: Sequence[tuple[Track, int]], device: str = "cpu") -> list[Tokens]:
    """Sequence tokens of excerpts for each layer, (E, T, D)."""
    outputs = _outputs(backbone, excerpts, device)
    layers = range(backbone.depth + 1)
    return [torch.cat([output.sequence[layer] for output in outputs]).float().cpu().numpy() for layer in layers]


def _add_shares(
    model: InspectedModel, name: str, tokens: Sequence[Tokens], excerpt_groups: npt.NDArray[Any], rows: InspectionRows
) -> None:
    """Add rows of the variance shares of tokens (E, T, D) of each layer; ``excerpt_groups`` is (E,)."""
    rng = np.random.default_rng(0)
    groups = np.unique(excerpt_groups)
    for layer, values in enumerate(tokens):
        shares = np.array(variance_shares(values))
        # Not a bootstrap: an excerpt drawn twice would agree with itself. Halves of the groups, drawn without
        # replacement, spread about as much as the estimate on all groups.
        halves = [np.isin(excerpt_groups, rng.permutation(groups)[: max(2, len(groups) // 2)]) for _ in range(_HALVES)]
        spread = 1.96 * np.std([variance_shares(values[half]) for half in halves], axis=0)  # 95 % of a normal
        low, high = np.maximum(shares - spread, 0), np.minimum(shares + spread, 1)
        names = ("position_share", "excerpt_share", "content_share")
        rows.add(
            "position",
            model,
            name,
            layer,
            {},
            range(len(values)),
            selected=False,
            dataset=f"stimulus:{name}",
            split_scores={n: (float(shares[k]), float(low[k]), float(high[k])) for k, n in enumerate(names)},
        )


def _add_matrices(
    model: InspectedModel,
    kind: str,
    tokens: Sequence[Tokens],
    silence: Sequence[Tokens],
    chroma: Tokens,
    rows: InspectionRows,
) -> None:
    """Add rows that compare each layer's self-similarity within an excerpt with that of silence and of chroma."""
    gap = max(1, round(_GAP_SECONDS * model.backbone.grid.token_rate))
    pairs = pairs_apart(chroma.shape[1], gap)
    harmony = [standard_ranks(cosine_matrix(excerpt.astype(np.float64))[pairs]) for excerpt in chroma]  # (P,) each
    for layer, values in enumerate(tokens):
        # All excerpts of silence are equal, so the first one stands for them.
        position = standard_ranks(cosine_matrix(silence[layer][0].astype(np.float64))[pairs])
        of_layer = [standard_ranks(cosine_matrix(excerpt.astype(np.float64))[pairs]) for excerpt in values]
        rows.add(
            "stimulus_ssm",
            model,
            kind,
            layer,
            {
                "position": np.array([float(ranks @ position) for ranks in of_layer]),
                "harmony": np.array([float(a @ b) for a, b in zip(of_layer, harmony, strict=True)]),
            },
            range(len(values)),
            selected=False,
            dataset=f"stimulus:{kind}",
        )


def _add_onsets(model: InspectedModel, kind: str, tracks: Sequence[Track], context: InspectionContext) -> None:
    """Add rows of the areas of all heads on sounds with known onsets: their median and the highest, by curve."""
    outputs = _outputs(model.backbone, [(track, 0) for track in tracks], context.device, attention=True)
    # Maps are reduced to curves batch by batch: those of all excerpts at once would not fit into memory.
    maps = [
        torch.stack([onset_curves(output.attention[layer].float()) for layer in sorted(output.attention)], dim=1)
        for output in outputs
    ]  # (B, L, H, C, T) each
    curves = torch.cat(maps).permute(0, 4, 1, 2, 3).flatten(2).cpu().numpy()  # (E, T, U)
    times = model.backbone.grid.times(curves.shape[1])
    areas = np.array(
        [score_track(c, times, t.labels["onsets"], t.track_id, 0).area for c, t in zip(curves, tracks, strict=True)]
    )
    num_heads = model.backbone.num_heads
    units: Floats = areas.reshape(len(areas), -1, len(ATTENTION_CURVES))  # (E, L * H, C)
    for index, curve in enumerate(ATTENTION_CURVES):
        best = int(units[:, :, index].mean(axis=0).argmax())
        context.rows.add(
            "stimulus_onset",
            model,
            curve,
            best // num_heads + 1,
            {
                "median_auc_of_heads": np.median(units[:, :, index], axis=1),
                "highest_auc_of_heads": units[:, best, index],
            },
            range(len(tracks)),
            selected=False,
            dataset=f"stimulus:{kind}",
            head=best % num_heads,
        )


def _add_flux(flux: InspectedModel, sounds: dict[str, list[Track]], rows: InspectionRows) -> None:
    """Add rows of the spectral flux on sounds with known onsets."""
    for kind, tracks in sounds.items():
        frames = _tokens(flux.backbone, [(track, 0) for track in tracks])[0]  # (E, T, F)
        times = flux.backbone.grid.times(frames.shape[1])
        areas = [
            score_track(flux_of(values)[:, None], times, track.labels["onsets"], track.track_id, 0).area[0]
            for values, track in zip(frames, tracks, strict=True)
        ]
        scores, dataset = {"auc": np.array(areas)}, f"stimulus:{kind}"
        rows.add("stimulus_onset", flux, "flux", 0, scores, range(len(tracks)), selected=False, dataset=dataset)
