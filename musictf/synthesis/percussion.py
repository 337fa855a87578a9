"""Drum kits: single strokes as waveforms, from swept sines and filtered noise.

Conventions: mono, float32; levels of the pieces of a kit are balanced, and the loudness of a note multiplies them.

Shapes:  N samples of a stroke
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.signal import butter, sosfilt

from musictf.synthesis.patterns import CRASH, HAT, KICK, OPEN_HAT, RIDE, SNARE, TOM

Floats = npt.NDArray[np.float64]
Waveform = npt.NDArray[np.float32]

# For each stroke: level, decay (1/s), tone start and end (Hz), its share, noise band (Hz) and its share.
Stroke = tuple[float, float, float, float, float, float, float, float]
KITS: dict[str, dict[int, Stroke]] = {
    "acoustic drums": {
        KICK: (1.0, 14, 110, 52, 1.0, 1500, 5000, 0.10),
        SNARE: (0.8, 17, 230, 180, 0.5, 900, 7000, 0.8),
        HAT: (0.30, 55, 0, 0, 0.0, 5500, 7800, 1.0),
        OPEN_HAT: (0.33, 9, 0, 0, 0.0, 5000, 7800, 1.0),
        RIDE: (0.30, 7, 3150, 3150, 0.25, 4200, 7600, 0.7),
        TOM: (0.8, 9, 150, 95, 1.0, 600, 3000, 0.15),
        CRASH: (0.55, 3, 0, 0, 0.0, 2800, 7800, 1.0),
    },
    "electronic drums": {
        KICK: (1.0, 7, 160, 42, 1.0, 3000, 7000, 0.03),
        SNARE: (0.7, 24, 190, 190, 0.25, 1500, 7800, 1.0),
        HAT: (0.28, 80, 6100, 6100, 0.2, 6500, 7900, 1.0),
        OPEN_HAT: (0.30, 12, 6100, 6100, 0.2, 6200, 7900, 1.0),
        RIDE: (0.28, 30, 4450, 4450, 0.6, 6000, 7900, 0.5),
        TOM: (0.8, 7, 210, 70, 1.0, 900, 1500, 0.05),
        CRASH: (0.45, 5, 5200, 5200, 0.1, 4500, 7900, 1.0),
    },
    "hand percussion": {
        KICK: (0.7, 20, 95, 80, 1.0, 200, 900, 0.25),
        SNARE: (0.55, 35, 420, 330, 0.8, 700, 2500, 0.5),
        HAT: (0.30, 28, 0, 0, 0.0, 3200, 6500, 1.0),
        OPEN_HAT: (0.30, 16, 0, 0, 0.0, 3000, 6500, 1.0),
        RIDE: (0.30, 40, 2100, 2050, 0.8, 2500, 6000, 0.3),
        TOM: (0.7, 16, 260, 200, 1.0, 500, 1800, 0.2),
        CRASH: (0.35, 6, 0, 0, 0.0, 3500, 7500, 1.0),
    },
}
SECONDS = 0.9  # length of every stroke


@lru_cache(maxsize=128)
def stroke(kit: str, piece: int, sample_rate: int) -> Waveform:
    """One stroke on a piece of a kit, (N,); every call returns the same bytes.

    Args:
        kit: Key of ``KITS``.
        piece: A drum of `musictf.synthesis.patterns`.
        sample_rate: In hertz.
    """
    level, decay, start, end, tone, low, high, noise = KITS[kit][piece]
    times = np.arange(round(SECONDS * sample_rate)) / sample_rate
    rng = np.random.default_rng([sum(kit.encode()), piece])
    # At low sample rates the noise band is moved below the Nyquist frequency.
    nyquist = 0.49 * sample_rate
    band = butter(2, [min(low, nyquist * 0.8), min(high, nyquist)], btype="bandpass", fs=sample_rate, output="sos")
    hiss: Floats = sosfilt(band, rng.standard_normal(len(times)))
    hiss /= np.sqrt(np.mean(hiss**2))
    # The pitch falls from start to end with a time constant of 33 ms, like that of a struck skin.
    phase = 2 * np.pi * (end * times + (start - end) / 30.0 * (1 - np.exp(-30.0 * times)))
    body = tone * np.sin(phase) * np.exp(-decay * times) + 0.35 * noise * hiss * np.exp(-1.3 * decay * times)
    # Ramps of 1 ms and 50 ms avoid clicks.
    fade = np.minimum(1.0, np.minimum(times / 0.001, (SECONDS - times) / 0.05))
    waveform = (level * body * fade).astype(np.float32)
    waveform.setflags(write=False)  # it is shared through the cache
    return waveform
