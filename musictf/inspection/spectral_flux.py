"""Spectral flux of a log-mel: the classical onset curve, which every comparison with attention includes.

Shapes:  N frames   F mel bands
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def flux_of(mel: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Mean over bands of the rise since the previous frame, in decibels, (N, F) -> (N,); 0 at the first frame.

    Args:
        mel: Level in decibels, (N, F).
    """
    frames = np.asarray(mel, dtype=np.float32)
    # Half-wave rectified: the end of a note is not an onset.
    flux: npt.NDArray[np.floating] = np.maximum(np.diff(frames, axis=0, prepend=frames[:1]), 0).mean(axis=1)
    return flux
