"""Perturbations of recordings: level, noise, lossy codecs, pitch and tempo.

Shapes:  N audio samples

Conventions: a perturbation is a deterministic function of a mono float32 waveform (N,), its sample rate and an amount.
Nothing is clipped: a level above full scale stays. All but ``stretch`` keep length and times; ``stretch`` returns
round(N / rate) samples, and an event at time t moves to t / rate. Every function holds the whole recording in memory.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.signal
import soundfile

from musictf.audio.timescale import Waveform, stretched, transposed
from musictf.errors import InputError

_SUBTYPES = {"MP3": "MPEG_LAYER_III", "OGG": "VORBIS"}
# libvorbis puts the samples of one write on the stack: those of a whole song would overflow it.
_BLOCK = 65536
_LONGEST_DELAY_SECONDS = 0.3  # longest codec delay that is searched for


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """A kind of change to recordings, and its valid amounts.

    Attributes:
        name: Name in configurations and rows.
        unit: Unit of the amount, as axes show it.
        amounts: Default amounts.
        neutral: Amount that changes nothing. It is infinite where only a limit changes nothing (noise: an infinite
            signal-to-noise ratio). Its sign then says at which end of the axis figures draw the clean recording.
        lowest: Smallest amount.
        highest: Largest amount.
        whole: Whether only whole amounts are valid: there is no chord label between C and C#.
        apply: Function of waveform (N,), sample rate in hertz and amount.
    """

    name: str
    unit: str
    amounts: tuple[float, ...]
    neutral: float
    lowest: float
    highest: float
    whole: bool = False
    apply: Callable[[Waveform, int, float], Waveform]

    def check(self, amount: float, where: str = "amount") -> None:
        """Refuse an invalid amount; ``where`` names the setting in the message.

        Raises:
            InputError: it is not a number, out of range, or not whole although it must be.
        """
        is_number = isinstance(amount, (int, float)) and not isinstance(amount, bool)
        is_valid = is_number and (amount == self.neutral or self.lowest <= amount <= self.highest)
        if not is_valid or (self.whole and amount != round(amount)):
            kind = "a whole number" if self.whole else "a number"
            raise InputError(
                f"{where}={amount!r} must be {kind} from {self.lowest:g} to {self.highest:g} ({self.unit})"
            )


def gain(waveform: Waveform, sample_rate: int, decibels: float) -> Waveform:
    """The recording (N,) amplified by ``decibels``; nothing is clipped."""
    return waveform * np.float32(10 ** (decibels / 20))


def noise(waveform: Waveform, sample_rate: int, ratio: float) -> Waveform:
    """The recording with white Gaussian noise.

    The seed of the noise is a hash of the samples: it depends on the recording and not on the ratio. Silence stays
    silent.

    Args:
        waveform: (N,).
        sample_rate: In hertz.
        ratio: Signal-to-noise ratio in dB, over the whole length.
    """
    seed = int.from_bytes(hashlib.sha256(np.ascontiguousarray(waveform).tobytes()).digest()[:8], "big")
    samples = np.random.default_rng(seed).standard_normal(len(waveform), dtype=np.float32)
    scale = _rms(waveform) / _rms(samples) * 10 ** (-ratio / 20)
    return waveform + np.float32(scale) * samples


def codec_mp3(waveform: Waveform, sample_rate: int, level: float) -> Waveform:
    """The recording through an MP3 encoder and decoder, at a constant bit rate.

    Args:
        waveform: (N,).
        sample_rate: In hertz, one that MP3 supports.
        level: libsndfile's compression level, from 0 to below 1: 320 down to 32 kbit/s from 32 kHz on, 160 down to 8
            from 16 kHz, 64 down to 8 below.

    Raises:
        InputError: this libsndfile cannot write MP3, or MP3 has no such sample rate.
    """
    return _reencoded(waveform, sample_rate, level, "MP3")


def codec_ogg(waveform: Waveform, sample_rate: int, level: float) -> Waveform:
    """The recording through an Ogg Vorbis encoder and decoder.

    Args:
        waveform: (N,).
        sample_rate: In hertz.
        level: libsndfile's compression level, from 0 (Vorbis quality 10) to 1 (quality 0).

    Raises:
        InputError: this libsndfile cannot write Ogg Vorbis.
    """
    return _reencoded(waveform, sample_rate, level, "OGG")


def pitch(waveform: Waveform, sample_rate: int, semitones: float) -> Waveform:
    """The recording (N,) transposed at the same tempo; see `musictf.audio.timescale`."""
    return transposed(waveform, sample_rate, semitones)


def stretch(waveform: Waveform, sample_rate: int, rate: float) -> Waveform:
    """The recording (N,) ``rate`` times as fast at the same pitch, round(N / rate) samples; see `timescale`."""
    return stretched(waveform, sample_rate, rate)


PERTURBATIONS: dict[str, Perturbation] = {
    perturbation.name: perturbation
    for perturbation in (
        Perturbation(name="gain", unit="dB", amounts=(-12, -6, 6), neutral=0, lowest=-60, highest=40, apply=gain),
        Perturbation(
            name="noise",
            unit="dB signal-to-noise",
            amounts=(30, 20, 10, 0),
            neutral=math.inf,
            lowest=-40,
            highest=120,
            apply=noise,
        ),
        Perturbation(
            name="mp3",
            unit="compression level",
            amounts=(0.5, 0.8, 0.95),
            neutral=-math.inf,
            lowest=0,
            highest=0.99,
            apply=codec_mp3,
        ),
        Perturbation(
            name="ogg",
            unit="compression level",
            amounts=(0.5, 0.8, 1),
            neutral=-math.inf,
            lowest=0,
            highest=1,
            apply=codec_ogg,
        ),
        Perturbation(
            name="pitch",
            unit="semitones",
            amounts=(-2, -1, 1, 2),
            neutral=0,
            lowest=-6,
            highest=6,
            whole=True,
            apply=pitch,
        ),
        Perturbation(
            name="stretch",
            unit="times as fast",
            amounts=(0.8, 0.9, 1.1, 1.25),
            neutral=1,
            lowest=0.5,
            highest=1.5,
            apply=stretch,
        ),
    )
}


def perturbation(name: str, where: str = "perturbation") -> Perturbation:
    """A perturbation by name.

    Raises:
        InputError: the name is unknown.
    """
    if name not in PERTURBATIONS:
        raise InputError(f"{where}: {name!r} is unknown: any of {', '.join(PERTURBATIONS)}")
    return PERTURBATIONS[name]


def _rms(waveform: Waveform) -> float:
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))


def _reencoded(waveform: Waveform, sample_rate: int, level: float, container: str) -> Waveform:
    """The recording (N,) after encoding and decoding, without the delay of the codec."""
    delay = codec_delay(container, sample_rate, level)
    decoded = _round_trip(waveform, sample_rate, level, container)[delay : delay + len(waveform)]
    return np.pad(decoded, (0, len(waveform) - len(decoded)))


@lru_cache(maxsize=256)
def codec_delay(container: str, sample_rate: int, level: float) -> int:
    """Delay of a codec in samples, measured on noise.

    A header frame of an MP3 states the delay, and decoders remove it. At bit rates so low that a frame cannot hold the
    header there is none, and everything is 1105 samples late (69 ms at 16 kHz).

    Args:
        container: ``MP3`` or ``OGG``.
        sample_rate: In hertz.
        level: libsndfile's compression level.
    """
    # The delay depends on the settings alone, so one measurement serves all recordings.
    probe = 0.1 * np.random.default_rng(0).standard_normal(2 * sample_rate, dtype=np.float32)
    # Low bit rates keep only low frequencies; noise below 1 kHz passes at all of them.
    probe = scipy.signal.sosfilt(scipy.signal.butter(2, 1000, fs=sample_rate, output="sos"), probe).astype(np.float32)
    decoded = _round_trip(probe, sample_rate, level, container)
    correlation = scipy.signal.correlate(decoded, probe, mode="full")[len(probe) - 1 :]  # lags from 0
    return int(correlation[: round(_LONGEST_DELAY_SECONDS * sample_rate)].argmax())


def _round_trip(waveform: Waveform, sample_rate: int, level: float, container: str) -> Waveform:
    """A waveform after encoding and decoding in memory, with the delay of the codec."""
    if container not in soundfile.available_formats():
        raise InputError(
            f"libsndfile {soundfile.__libsndfile_version__} cannot write {container}; "
            "install the soundfile wheel, whose libsndfile can, or leave this perturbation out"
        )
    file = io.BytesIO()
    settings = {"subtype": _SUBTYPES[container], "format": container, "compression_level": level}
    if container == "MP3":
        settings["bitrate_mode"] = "CONSTANT"
    try:
        with soundfile.SoundFile(file, "w", sample_rate, 1, **settings) as encoder:
            for start in range(0, len(waveform), _BLOCK):
                encoder.write(waveform[start : start + _BLOCK])
        file.seek(0)
        decoded: Waveform = soundfile.read(file, dtype="float32")[0]
    except soundfile.LibsndfileError as error:
        raise InputError(
            f"{container} at {sample_rate} Hz and compression level {level:g} cannot be written "
            f"({str(error).split(': ', 1)[-1].strip().rstrip('.')}); leave it out, or resample the corpus"
        ) from None
    return decoded
