"""Recordings of a song: instruments, room, level and noise.

Conventions: waveforms are mono float32, levels in decibels; recordings of one song have all notes at the same times.

Shapes:  N samples of a recording   n notes of a part
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.fft import next_fast_len
from scipy.signal import oaconvolve, resample

from musictf.synthesis.composition import RECORDING, Part, Song
from musictf.synthesis.instruments import BASSES, INSTRUMENTS, LOUDNESS, MELODIC, Waveform, unit_note
from musictf.synthesis.percussion import KITS, stroke

# Mixing levels in decibels relative to one note of unit loudness, and their variation: in steps, so that the balance
# of a mix does not identify a track.
ROLE_LEVELS = {"chords": -4.0, "second chords": -6.0, "melody": 0.0, "bass": 2.0, "drums": 8.0}
LEVEL_STEPS_DB = (-3.0, 0.0, 3.0)
MAX_DETUNING_CENTS = 30.0
# Rooms shared by all tracks: decay time RT60 in seconds, level of the reverberation in decibels.
ROOMS = ((0.25, -18.0), (0.5, -14.0), (0.9, -13.0), (1.4, -12.0))
NOISE_LEVELS_DB = (-66.0, -56.0, -48.0)
# Level of the loudest sample in decibels of full scale, drawn for every recording: loudness does not identify a song.
PEAK_RANGE_DB = (-14.0, -1.0)


@dataclass(frozen=True)
class Player:
    """The player of a part: instrument family or kit, transposition in semitones (whole octaves), level in decibels."""

    family: str
    shift: int
    level: float


def cast(rng: np.random.Generator, song: Song, avoid: Mapping[str, Player] | None = None) -> dict[str, Player]:
    """Draw a player for every part, all of different families.

    Args:
        rng: Source of randomness.
        song: The song.
        avoid: Players of another recording: every part gets another family, and if possible another register.

    Returns:
        Players by role.
    """
    avoid = avoid or {}
    players: dict[str, Player] = {}
    for part in song.parts:
        pool = tuple(KITS) if part.role == "drums" else BASSES if part.role == "bass" else MELODIC
        used = {player.family for player in players.values()}
        before = avoid.get(part.role)
        if before:
            used.add(before.family)
        family = str(rng.choice([name for name in pool if name not in used]))
        shift = 0 if part.role == "drums" else draw_shift(rng, part, family, before)
        players[part.role] = Player(family, shift, ROLE_LEVELS[part.role] + float(rng.choice(LEVEL_STEPS_DB)))
    return players


def record(song: Song, players: Mapping[str, Player], seconds: float, sample_rate: int, seed: list[int]) -> Waveform:
    """A recording, (N,) with N = seconds x sample_rate, with its peak below 1.

    Args:
        song: The song.
        players: Players by role.
        seconds: Length of the recording.
        sample_rate: In hertz.
        seed: Determines detuning, room, noise and level.
    """
    rng = np.random.default_rng(seed)
    cents = rng.uniform(-MAX_DETUNING_CENTS, MAX_DETUNING_CENTS)
    room, noise_db, peak_db = int(rng.integers(len(ROOMS))), rng.choice(NOISE_LEVELS_DB), rng.uniform(*PEAK_RANGE_DB)
    num_samples = round(seconds * sample_rate)
    # Detuning: the notes are mixed on a stretched time axis, then the mix is resampled, so that all tracks can share
    # single notes. Half a second more keeps the end of the resampled mix from wrapping round to its start.
    length = next_fast_len(num_samples + sample_rate // 2, real=True)
    stretched = next_fast_len(round(length * 2 ** (cents / 1200)), real=True)
    mix = _mixed(song, players, stretched, sample_rate, stretch=stretched / length)
    dry = resample(mix, length)[:num_samples].astype(np.float32)
    wet = oaconvolve(dry, _impulse_response(room, sample_rate))[:num_samples].astype(np.float32)
    wet *= 10 ** (peak_db / 20) / max(1e-6, float(np.abs(wet).max()))
    wet += rng.standard_normal(num_samples, dtype=np.float32) * np.float32(10 ** (noise_db / 20) * 0.3)
    # Noise may raise the peak slightly; the highest peak level leaves room for it.
    waveform: Waveform = np.clip(wet, -0.999, 0.999)
    return waveform


def recorded_versions(
    song: Song, seed: int, index: int, seconds: float, sample_rate: int, num_versions: int
) -> list[tuple[dict[str, Player], Waveform]]:
    """The recording of a track and other versions of it, each with other instruments than the first.

    Args:
        song: The song.
        seed: Seed of the corpus.
        index: Number of the track.
        seconds: Length of the recordings.
        sample_rate: In hertz.
        num_versions: Recordings besides the first.

    Returns:
        Players and waveform (N,) of each recording.
    """
    recordings: list[tuple[dict[str, Player], Waveform]] = []
    for number in range(1 + num_versions):
        # Players and sound have streams of their own.
        players = cast(
            np.random.default_rng([seed, index, RECORDING + number, 0]), song, recordings[0][0] if recordings else None
        )
        waveform = record(song, players, seconds, sample_rate, seed=[seed, index, RECORDING + number, 1])
        recordings.append((players, waveform))
    return recordings


def tags(players: Mapping[str, Player]) -> list[str]:
    """Families that play, sorted: the tags of a track."""
    return sorted({player.family for player in players.values()})


def _mixed(song: Song, players: Mapping[str, Player], length: int, sample_rate: int, stretch: float) -> Waveform:
    """Sum of all notes, (length,), on a time axis stretched by ``stretch``; rate in hertz."""
    mix = np.zeros(length, dtype=np.float32)
    for part in song.parts:
        player = players[part.role]
        gain = 10 ** (player.level / 20)
        # (n,), in samples
        starts = np.rint(part.notes[:, 0] * stretch * sample_rate).astype(int)
        for start, (_, seconds, pitch, loudness) in zip(starts, part.notes.tolist(), strict=True):
            if part.role == "drums":
                note = stroke(player.family, int(pitch), sample_rate) * np.float32(LOUDNESS * gain * loudness)
            else:
                note = _held(player.family, int(pitch) + player.shift, seconds * stretch, sample_rate)
                note *= np.float32(gain * loudness)
            end = min(start + len(note), length)
            mix[start:end] += note[: end - start]
    return mix


def _held(family: str, pitch: int, seconds: float, sample_rate: int) -> Waveform:
    """A note that is held for some seconds and then released, (N,); rate in hertz."""
    unit = unit_note(family, pitch, sample_rate)
    release = round(INSTRUMENTS[family].release * sample_rate)
    # Longer notes end where the instrument's longest note does.
    length = min(round(seconds * sample_rate) + release, len(unit))
    note = unit[:length].copy()
    fade = min(release, length)
    note[length - fade :] *= np.linspace(1.0, 0.0, fade, dtype=np.float32) ** 2
    return note


def draw_shift(rng: np.random.Generator, part: Part, family: str, before: Player | None) -> int:
    """Draw octaves, in semitones, that bring a part into the range of an instrument family.

    Args:
        rng: Source of randomness.
        part: The part.
        family: Key of ``INSTRUMENTS``.
        before: Player of the part in another recording, whose shift is avoided if possible.
    """
    instrument = INSTRUMENTS[family]
    low, high = float(part.notes[:, 2].min()), float(part.notes[:, 2].max())
    fitting = [s for s in (-24, -12, 0, 12, 24) if low + s >= instrument.lowest and high + s <= instrument.highest]
    # A part that is out of range in every octave is not shifted. Two octaves are used only where one does not suffice.
    near = [shift for shift in fitting if abs(shift) <= 12] or fitting or [0]
    other = [shift for shift in near if before is None or shift != before.shift]
    return int(rng.choice(other or near))


@lru_cache(maxsize=16)
def _impulse_response(room: int, sample_rate: int) -> npt.NDArray[np.float32]:
    """Impulse response (taps,) of a room: the direct sound, then low-passed noise that decays exponentially."""
    decay_time, level_db = ROOMS[room]
    length = round(0.7 * decay_time * sample_rate)
    times = np.arange(length) / sample_rate
    noise = np.random.default_rng([room, 7]).standard_normal(length)
    darker = np.convolve(noise, [0.25, 0.5, 0.25], mode="same")
    # The first reflection comes after 8 ms; exp(-6.9) is -60 dB, which defines the decay time.
    tail = np.where(times > 0.008, darker * np.exp(-6.9 * times / decay_time), 0.0)
    tail *= 10 ** (level_db / 20) / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    return tail.astype(np.float32)
