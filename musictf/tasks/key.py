"""Key estimation: tonic and mode of a whole track.

Conventions:
    24 classes: 12 tonics in major and minor. Enharmonic names are one key, written as `mir_eval` reads it:
    ``C# major``.
    Class probabilities of a track are the mean over its excerpts.
    Text that names none of the 24 keys is refused: there is no class for an unknown key.

Scored: ``weighted`` by `mir_eval.key.weighted_score` (1 for the key, .5 for a fifth above, .3 for the relative, .2 for
the parallel, 0 for all others, a fifth *below* included); and ``accuracy``, the share of tracks whose key is exact.

Classical system: mean chroma correlated with the 24 profiles of Krumhansl and Kessler.

References:
    Krumhansl, "Cognitive Foundations of Musical Pitch", Oxford 1990, table 2.1: the profiles.

Shapes:  N examples   E excerpts of a track
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import mir_eval
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from musictf.errors import InputError
from musictf.tasks.base import Decoder, Floats, Scores, Task, masked_cross_entropy, mean_softmax, track_means
from musictf.tasks.chroma import PITCH_CLASSES, track_chroma

MODES = ("major", "minor")
KEYS = tuple(f"{tonic} {mode}" for mode in MODES for tonic in PITCH_CLASSES)
RELATIONS = {1.0: "exact", 0.5: "fifth", 0.3: "relative", 0.2: "parallel", 0.0: "other"}

_KEY = re.compile(r"([A-Ga-g])([#b♯♭]*)(?:\s+|\s*:\s*)(maj|min)(?:or)?", re.IGNORECASE)
_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_PROFILES = np.array(  # (2, 12): of C major and C minor, from the tonic upwards
    [
        [6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88],
        [6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17],
    ]
)


@dataclass(kw_only=True)
class KeyTask(Task):
    """One of 24 keys for a whole track."""

    name: ClassVar[str] = "key"
    annotation: ClassVar[str] = "key"
    level: ClassVar[str] = "track"
    headline: ClassVar[str] = "weighted"
    table_scores: ClassVar[tuple[str, ...]] = ("weighted", "accuracy")
    suffix: ClassVar[str] = ".key"
    decoders: ClassVar[tuple[str, ...]] = ("mean_probability",)
    classical: ClassVar[str] = "krumhansl_templates"
    vocabulary: ClassVar[tuple[str, ...]] = KEYS

    @property
    def num_outputs(self) -> int:
        return len(KEYS)

    def encode(self, annotation: str, times: Floats) -> Tensor:
        return torch.tensor(key_class(annotation))

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return masked_cross_entropy(logits, targets)

    def decode(self, logits: Floats, times: Floats, seconds: float, decoder: Decoder) -> str:
        return KEYS[int(mean_softmax(logits).argmax())]

    def score(self, references: Sequence[str], estimates: Sequence[str]) -> Scores:
        weighted = [key_score(*pair) for pair in zip(references, estimates, strict=True)]
        return track_means({"weighted": weighted, "accuracy": [float(score == 1) for score in weighted]})

    def details(self, references: Sequence[str], estimates: Sequence[str]) -> dict[str, Any]:
        """Share of tracks by the relation of the estimate to the reference, and a confusion table.

        ``confusion[m][n][d]`` counts tracks of mode m estimated in mode n with a tonic d semitones above the right one.
        """
        relations = Counter(RELATIONS[key_score(*pair)] for pair in zip(references, estimates, strict=True))
        confusion = np.zeros((2, 2, 12), dtype=np.int64)
        for pair in zip(references, estimates, strict=True):
            reference, estimate = map(key_class, pair)
            confusion[reference // 12, estimate // 12, (estimate - reference) % 12] += 1
        rows = [dict(zip(MODES, table.tolist(), strict=True)) for table in confusion]
        return {
            "relations": {name: relations[name] / len(references) for name in RELATIONS.values()},
            "confusion": dict(zip(MODES, rows, strict=True)),
        }

    def classical_estimate(self, waveform: npt.NDArray[np.float32], sample_rate: int) -> str:
        mean = track_chroma(waveform, sample_rate)[0].mean(axis=1)  # (12,)
        templates = np.array([np.roll(profile, tonic) for profile in _PROFILES for tonic in range(12)])  # (24, 12)
        # Correlation but for a factor that all keys share. Silence correlates with no key and gives the first one.
        centred = templates - templates.mean(axis=1, keepdims=True)
        correlation = centred @ (mean - mean.mean()) / np.linalg.norm(centred, axis=1)
        return KEYS[int(correlation.argmax())]

    def majority_estimate(self, annotations: Sequence[str], seconds: float) -> str:
        return KEYS[int(np.bincount([key_class(key) for key in annotations], minlength=len(KEYS)).argmax())]

    def write(self, estimate: str, path: Path) -> None:
        path.write_text(f"{estimate}\n")


def key_class(text: Any) -> int:
    """Index of a key in `KEYS`, in any spelling: ``Db minor``, ``C#:min`` and ``c# Minor`` are the same key.

    Raises:
        InputError: the text names none of the 24 keys.
    """
    match = _KEY.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise InputError(
            f"key {text!r} is not one of the 24 keys: write tonic and mode, like 'C major' or 'F# minor', "
            "and leave 'key' out of tracks that have none"
        )
    letter, accidentals, mode = match.groups()
    shift = sum(1 if sign in "#♯" else -1 for sign in accidentals)
    return 12 * MODES.index(f"{mode.lower()}or") + (_STEPS[letter.upper()] + shift) % 12


def key_score(reference: str, estimate: str) -> float:
    """`mir_eval.key.weighted_score` of two keys, in any spelling."""
    return float(mir_eval.key.weighted_score(*(KEYS[key_class(key)] for key in (reference, estimate))))
