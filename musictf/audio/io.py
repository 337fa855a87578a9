"""One excerpt of any audio file, at any rate, without decoding the rest of the file.

Conventions: positions and lengths are samples at the requested rate; waveforms are mono float32; several channels are
averaged. An excerpt of a file at another rate equals the same excerpt of the whole file resampled, because the read
starts on a sample that both rates share and includes a margin wider than the resampling filter.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import torch
import torchaudio

from musictf.errors import InputError

Waveform = npt.NDArray[np.float32]

# torchaudio's sinc filter spans 6 zero crossings of the slower rate; twice that leaves no edge in the excerpt.
_FILTER_WIDTH = 6
_BLOCK_SECONDS = 60  # read at a time where a whole file is read
# An mp3 frame uses bits of up to ten frames before it: a decoder that starts on it gets its first samples wrong.
_MP3_LEAD = 10 * 1152


@dataclass(frozen=True)
class AudioInfo:
    """Header of an audio file.

    Attributes:
        frames: Length in samples at the stored rate.
        sample_rate: Stored rate in hertz.
        channels: Number of channels.
    """

    frames: int
    sample_rate: int
    channels: int

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.frames / self.sample_rate

    def num_samples(self, sample_rate: int) -> int:
        """Length in samples after resampling to ``sample_rate``."""
        return math.ceil(self.frames * sample_rate / self.sample_rate)


def audio_info(path: str | Path) -> AudioInfo:
    """Header of an audio file.

    Raises:
        InputError: the file is missing, not audio, or empty.
    """
    try:
        info = soundfile.info(str(path))
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{path}: {_reason(path, error)}") from error
    if info.frames <= 0:  # libsndfile opens files without samples
        raise InputError(f"{path}: holds no audio; remove it from the corpus")
    return AudioInfo(info.frames, info.samplerate, info.channels)


def read_excerpt(path: str | Path, start: int, num_samples: int, sample_rate: int, normalise: str = "none") -> Waveform:
    """Samples ``start`` to ``start + num_samples`` of a file resampled to ``sample_rate``.

    Args:
        path: wav, flac, ogg, mp3 or anything else libsndfile reads.
        start: First sample, at ``sample_rate``.
        num_samples: How many, at ``sample_rate``.
        sample_rate: Rate in hertz.
        normalise: ``none``, or ``peak``: divide by the largest magnitude of the whole file.

    Returns:
        Waveform (num_samples,).

    Raises:
        InputError: the file cannot be read, ends before the excerpt does, or holds values that are not finite.
    """
    info = audio_info(path)
    if start < 0 or start + num_samples > info.num_samples(sample_rate):
        raise InputError(
            f"{path}: lasts {info.seconds:.2f} s, too short for an excerpt from {start / sample_rate:.2f} s "
            f"to {(start + num_samples) / sample_rate:.2f} s"
        )
    if info.sample_rate == sample_rate:
        waveform = _read(path, start, num_samples)
    else:
        waveform = _read_resampled(path, start, num_samples, info, sample_rate)
    if normalise == "peak":
        waveform = waveform / max(track_peak(str(path)), np.finfo(np.float32).tiny)  # silence stays silent
    return waveform


@functools.lru_cache(maxsize=65536)
def track_peak(path: str) -> np.float32:
    """Largest magnitude of a whole file (mono), read block by block once per process."""
    info = audio_info(path)
    block = _BLOCK_SECONDS * info.sample_rate
    return max(
        np.abs(_read(path, start, min(block, info.frames - start))).max() for start in range(0, info.frames, block)
    )


def _read(path: str | Path, start: int, num_frames: int) -> Waveform:
    """Frames at the file's own rate, averaged to mono."""
    try:
        with soundfile.SoundFile(str(path)) as file:
            # Decode some frames more, then drop them.
            lead = min(start, _MP3_LEAD) if file.format == "MP3" else 0
            file.seek(start - lead)
            audio = file.read(lead + num_frames, dtype="float32", always_2d=True)[lead:]
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{path}: {_reason(path, error)}") from error
    if len(audio) < num_frames:
        raise InputError(
            f"{path}: breaks off {num_frames - len(audio)} samples before its stated end; "
            "the file is damaged, encode it again or remove it from the corpus"
        )
    waveform: Waveform = audio[:, 0] if audio.shape[1] == 1 else audio.mean(axis=1)
    if not np.isfinite(waveform).all():
        raise InputError(f"{path}: holds NaN or infinite samples; encode it again or remove it from the corpus")
    return waveform


def _read_resampled(path: str | Path, start: int, num_samples: int, info: AudioInfo, sample_rate: int) -> Waveform:
    """An excerpt (num_samples,) of a file stored at another rate."""
    divisor = math.gcd(info.sample_rate, sample_rate)
    per_source, per_target = info.sample_rate // divisor, sample_rate // divisor
    # One period holds per_target samples out for per_source samples in: both grids meet at its start.
    reach = math.ceil(2 * _FILTER_WIDTH * max(1.0, info.sample_rate / sample_rate))
    margin = 1 + math.ceil(reach / per_source)
    first = max(0, start // per_target - margin)
    last = -(-(start + num_samples) // per_target) + margin
    begin, end = first * per_source, min(info.frames, last * per_source)
    source = torch.from_numpy(_read(path, begin, end - begin))
    resampled = torchaudio.functional.resample(
        source, info.sample_rate, sample_rate, lowpass_filter_width=_FILTER_WIDTH
    )
    offset = start - first * per_target
    cut: Waveform = resampled[offset : offset + num_samples].numpy()
    return cut


def _reason(path: str | Path, error: Exception) -> str:
    """Why a file cannot be read, and what to do about it."""
    if not Path(path).exists():
        return "does not exist"
    if Path(path).stat().st_size == 0:
        return "is an empty file; remove it from the corpus"
    return f"cannot be decoded ({str(error).split(': ', 1)[-1].strip().rstrip('.')}); remove it from the corpus"
