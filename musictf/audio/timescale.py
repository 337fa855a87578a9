"""Time stretching and pitch shifting of a whole recording.

A phase vocoder alone smears every attack over its window (±60 ms at 16 kHz with librosa's defaults), which is close to
the tolerance of beat scores (±70 ms). So the recording is separated in two: the harmonic part goes through a phase
vocoder with a long window, the percussive part through overlap-add with a short one.

Shapes:  N audio samples

Conventions: waveforms are mono float32 and held whole in memory, with several spectrograms of them; ``rate`` above 1
is faster; an event at time t moves to t / rate. Above a rate of 1.5 the short frames leave gaps in which an attack can
be lost; below 1 the phase vocoder attenuates the harmonic part by up to 1.2 dB.

References:
    J. Driedger, M. Müller, S. Ewert, "Improving time-scale modification of music signals using harmonic-percussive
    separation", IEEE Signal Processing Letters 21(1), 2014.
"""

from __future__ import annotations

import librosa
import numpy as np
import numpy.typing as npt

Waveform = npt.NDArray[np.float32]

# Windows in seconds, rounded to a power of two of samples: 2048 and 256 at 16 and at 22.05 kHz. The long one must
# resolve the notes of a low chord.
_HARMONIC_WINDOW = 0.11
_PERCUSSIVE_WINDOW = 0.015
# The percussive part must exceed the harmonic part by this factor. With a plain split (1), so much of every chord is
# taken for percussive that a template matcher loses a third of its chords on pop songs.
_PERCUSSIVE_MARGIN = 4.0


def stretched(waveform: Waveform, sample_rate: int, rate: float) -> Waveform:
    """The recording ``rate`` times as fast, at the same pitch.

    Args:
        waveform: (N,).
        sample_rate: In hertz.
        rate: 2 halves the duration, 0.5 doubles it.

    Returns:
        Waveform (round(N / rate),).
    """
    length = round(len(waveform) / rate)
    n_fft = min(_window(_HARMONIC_WINDOW, sample_rate), len(waveform))
    spectrum = librosa.stft(waveform, n_fft=n_fft)  # (F, T)
    percussive = librosa.decompose.hpss(spectrum, margin=(1.0, _PERCUSSIVE_MARGIN))[1]
    # The harmonic part is the rest, so that nothing is lost between the two.
    harmonic = librosa.phase_vocoder(spectrum - percussive, rate=rate)
    attacks = librosa.istft(percussive, n_fft=n_fft, length=len(waveform))
    return librosa.istft(harmonic, n_fft=n_fft, length=length) + _overlap_added(
        attacks, _window(_PERCUSSIVE_WINDOW, sample_rate), rate, length
    )


def transposed(waveform: Waveform, sample_rate: int, semitones: float) -> Waveform:
    """The recording ``semitones`` higher, at the same length and tempo.

    Args:
        waveform: (N,).
        sample_rate: In hertz.
        semitones: Interval; negative is lower.

    Returns:
        Waveform (N,).
    """
    ratio = 2.0 ** (semitones / 12)
    slow = stretched(waveform, sample_rate, 1 / ratio)
    # Played faster by the same ratio, it has the old length and another pitch.
    high = librosa.resample(slow, orig_sr=sample_rate * ratio, target_sr=sample_rate, res_type="soxr_hq")
    return librosa.util.fix_length(high, size=len(waveform)).astype(np.float32)


def _window(seconds: float, sample_rate: int) -> int:
    """Length of a window in samples, a power of two."""
    return int(2 ** round(np.log2(seconds * sample_rate)))


def _overlap_added(waveform: Waveform, window: int, rate: float, length: int) -> Waveform:
    """Overlap-add, (N,) to (length,): frames are read ``rate`` half windows apart and added half a window apart."""
    hop = window // 2
    num_frames = 2 * (length // window + 1)
    centres = np.rint(np.arange(num_frames) * hop * rate).astype(np.int64)
    padded = np.pad(waveform, (hop, window + max(0, int(centres[-1]) - len(waveform))))
    frames = padded[centres[:, None] + np.arange(window)] * np.hanning(window + 1)[:-1].astype(np.float32)
    total = np.zeros(num_frames * hop + window, dtype=np.float32)
    # Hann windows half a window apart sum to 1. Frames of one parity do not overlap: they are added all at once.
    for parity in (0, 1):
        every_second = frames[parity::2].ravel()
        total[parity * hop : parity * hop + len(every_second)] += every_second
    return total[hop : hop + length]
