"""Spectral fingerprint of a recording, robust to level, codec, sample rate and the start of the file.

A fingerprint is the list of a recording's spectral peaks: points of the spectrogram that no other point within 0.32 s
and 190 Hz exceeds. Triples of neighbouring peaks are hashed; an inverted index of hashes gives candidates and their
time offset. The score is the share of common peaks in the time where both recordings overlap (Dice coefficient).

Shapes:  N audio samples   P peaks of a fingerprint

Conventions: frames of 64 ms every 16 ms, whatever the sample rate, so that nothing has to be resampled; bins of
15.6 Hz from 140 to 3500 Hz, which a file of 8 kHz still holds; a peak is ``256 * frame + bin``, ascending. A copy must
hold at least 8 s of the other recording, or 80 % of the shorter of the two. A copy at another speed or pitch, and
another performance, count as other recordings.

Measured on 150 rendered pop songs and 59 game recordings (8 hours), each cut to 10 s at any sample and coded again in
8 ways (mp3 at 56 to 128 kbit/s, ogg at quality 2, PCM; 8, 16, 22.05, 44.1 kHz; up to 20 dB down): no cut of 1200 of the
songs is missed and 9 of 472 of the game recordings; none of 348 000 pairs of other recordings is taken for a copy (best
score 0.38, of tracks of one game). Of 60 synthetic songs played on other instruments at the same times, octaves and
tuning none scores above 0.26. Known false matches: additive tones of the same notes and nearly the same timbre (0.71;
clearly other timbres 0.46 at most). Clipped by 20 dB, 85 % of the cuts are missed. It takes about 1/900 of real time on
one core at 16 kHz, and packed 1.15 kB a minute; to compare 10 000 tracks of 4 minutes with as many takes about an hour
(extrapolated from 60 against 2000).

References:
    Wang, "An industrial-strength audio search algorithm", ISMIR 2003 (peaks, hashes, votes by offset).
    Six and Leman, "Panako", ISMIR 2014 (triples of peaks).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.fft
import soundfile
from scipy.ndimage import maximum_filter1d

from musictf.errors import InputError

Fingerprint = npt.NDArray[np.uint32]

VERSION = 1
# Least score of a copy: 99 % of 10 s copies reached it, and other music stayed below 0.4 (see above).
THRESHOLD = 0.5

_FRAME_SECONDS, _HOP_SECONDS = 0.064, 0.016
_BINS = slice(9, 224)  # of 15.6 Hz: 140 to 3500 Hz
_REACH_FRAMES, _REACH_BINS = 20, 12  # neighbourhood of a peak on each side: 0.32 s and 190 Hz
_FLOOR = 1e-6  # a sine of -120 dB: above the rounding noise of 16-bit audio
_BLOCK_FRAMES = 1024  # spectra computed at a time
_TRIPLES = ((1, 2), (1, 3), (2, 3))  # each peak with two of the three that follow it
_TRIPLE_FRAMES = 125  # longest triple, 2 s: five bits of a time step in a hash
_TIME_CELL = 4  # frames that count as one time in a hash and one offset in a vote
_MIN_FRAMES, _MIN_SHARE, _MIN_PEAKS = round(8 / _HOP_SECONDS), 0.8, 16
_MAX_CANDIDATES = 16
_OFFSET_ZERO = 1 << 30  # makes offsets positive, so that they fit beside an owner in one integer


class Fingerprinter:
    """Fingerprint of audio that arrives block by block, in memory independent of its length.

    Args:
        sample_rate: In hertz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._length = round(_FRAME_SECONDS * sample_rate)
        window = np.hanning(self._length)
        self._window = (window / window.sum()).astype(np.float32)
        self._samples = np.zeros(0, np.float32)
        self._first_sample = 0  # position in the recording of the first sample still in memory
        self._next_frame = 0
        width = _BINS.stop - _BINS.start
        self._rows = np.zeros((_REACH_FRAMES, width), np.float32)  # silence before the start
        self._first_row = -_REACH_FRAMES
        self._peaks: list[Fingerprint] = []

    def add(self, samples: npt.NDArray[np.float32]) -> None:
        """Add the next samples, (N,), or (N, C) whose C channels are averaged."""
        mono = samples if samples.ndim == 1 else samples.mean(axis=1)
        self._samples = np.concatenate([self._samples, mono])
        whole = self._first_sample + len(self._samples) - self._length
        while self._start(self._next_frame + _BLOCK_FRAMES - 1) <= whole:
            self._take_rows(_BLOCK_FRAMES)

    def finish(self) -> Fingerprint:
        """Fingerprint of all samples, (P,)."""
        whole = self._first_sample + len(self._samples) - self._length
        count = 0
        while self._start(self._next_frame + count) <= whole:
            count += 1
        if count:
            self._take_rows(count)
        # Silence after the end, as before the start.
        self._rows = np.concatenate([self._rows, np.zeros((_REACH_FRAMES, self._rows.shape[1]), np.float32)])
        self._pick_peaks()
        return np.concatenate(self._peaks or [np.zeros(0, np.uint32)])

    def _start(self, frame: int) -> int:
        """First sample of a frame; rounded for each frame, so that the hop is exact on average at any rate."""
        return round(frame * _HOP_SECONDS * self._rate)

    def _take_rows(self, count: int) -> None:
        """Compute the spectra of the next ``count`` frames, and drop the samples that no later frame needs."""
        starts = [self._start(self._next_frame + index) - self._first_sample for index in range(count)]
        frames = np.lib.stride_tricks.sliding_window_view(self._samples, self._length)[starts]
        spectra = np.abs(scipy.fft.rfft(frames * self._window, axis=1)[:, _BINS])
        # At sample rates below 7 kHz the upper bins do not exist; they are silent.
        spectra = np.pad(spectra, ((0, 0), (0, self._rows.shape[1] - spectra.shape[1])))
        self._rows = np.concatenate([self._rows, spectra])
        self._next_frame += count
        keep = self._start(self._next_frame) - self._first_sample
        self._samples = self._samples[keep:]
        self._first_sample += keep
        self._pick_peaks()

    def _pick_peaks(self) -> None:
        """Find the peaks of all rows whose neighbourhood is complete; keep the rows that later ones need."""
        if len(self._rows) <= 2 * _REACH_FRAMES:
            return
        highest = maximum_filter1d(self._rows, 2 * _REACH_FRAMES + 1, axis=0, mode="constant")
        highest = maximum_filter1d(highest, 2 * _REACH_BINS + 1, axis=1, mode="constant")
        inner = slice(_REACH_FRAMES, len(self._rows) - _REACH_FRAMES)
        rows, bins = np.nonzero((self._rows[inner] == highest[inner]) & (self._rows[inner] > _FLOOR))
        rows += self._first_row + _REACH_FRAMES
        self._peaks.append((rows * 256 + bins + _BINS.start).astype(np.uint32))
        self._first_row += len(self._rows) - 2 * _REACH_FRAMES
        self._rows = self._rows[-2 * _REACH_FRAMES :]


def decoded_blocks(path: str | Path) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """A file decoded from start to end, some seconds at a time.

    Yields:
        The sample rate in hertz, and the next samples, (N, C) with C channels.

    Raises:
        InputError: the file cannot be decoded, or holds values that are not finite.
    """
    try:
        with soundfile.SoundFile(str(path)) as file:
            for block in file.blocks(1 << 17, dtype="float32", always_2d=True):
                if not np.isfinite(block).all():
                    raise InputError(
                        f"{path}: holds NaN or infinite samples; encode it again or remove it from the corpus"
                    )
                yield file.samplerate, block
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{path}: cannot be decoded ({error}); remove it from the corpus") from error


def fingerprint(path: str | Path) -> Fingerprint:
    """Fingerprint of an audio file, (P,), about 12 peaks a second of music; empty for silence.

    Raises:
        InputError: the file cannot be decoded.
    """
    printer: Fingerprinter | None = None
    for sample_rate, block in decoded_blocks(path):
        printer = printer or Fingerprinter(sample_rate)
        printer.add(block)
    return printer.finish() if printer else np.zeros(0, np.uint32)


def pack(peaks: Fingerprint) -> bytes:
    """A fingerprint (P,) compressed to about two bytes a peak."""
    steps = np.diff(peaks.astype("<u4"), prepend=np.uint32(0)).astype("<u4")
    # Byte planes: the high bytes of all steps are mostly zeros and compress best side by side.
    return zlib.compress(steps.view(np.uint8).reshape(-1, 4).T.tobytes(), 9)


def unpack(content: bytes) -> Fingerprint:
    """The fingerprint (P,) that `pack` has compressed."""
    planes = np.frombuffer(zlib.decompress(content), np.uint8).reshape(4, -1)
    return np.cumsum(np.ascontiguousarray(planes.T).view("<u4").ravel(), dtype=np.uint32)


def match(first: Fingerprint, second: Fingerprint) -> float:
    """Dice coefficient of two fingerprints, (P,) and (P',), at their best offset; a copy reaches `THRESHOLD`."""
    return max((score for _, score in FingerprintIndex([second]).scores(first)), default=0.0)


class FingerprintIndex:
    """Inverted index of many fingerprints: finds copies of a recording without a comparison to every one.

    Takes about 1 kB of memory for each second of music: index a large corpus in parts.

    Args:
        fingerprints: Fingerprints, (P,) each.
    """

    def __init__(self, fingerprints: Sequence[Fingerprint]) -> None:
        self._fingerprints = fingerprints
        hashed = [_hashes(peaks) for peaks in fingerprints]
        counts = [len(hashes) for hashes, _ in hashed]
        hashes = np.concatenate([part for part, _ in hashed] or [np.zeros(0, np.uint32)])
        order = np.argsort(hashes)
        self._hashes = hashes[order]
        self._owners = np.repeat(np.arange(len(counts), dtype=np.int64), counts)[order]
        self._frames = np.concatenate([part for _, part in hashed] or [np.zeros(0, np.int64)])[order]

    def scores(self, peaks: Fingerprint) -> list[tuple[int, float]]:
        """Positions of the fingerprints with common hashes, each with its score, the best first.

        Args:
            peaks: Fingerprint to search for, (P,).
        """
        best: dict[int, float] = {}
        for owner, offset in self._candidates(peaks):
            # The offset of a vote is exact to a frame.
            score = max(dice_score(peaks, self._fingerprints[owner], offset + step) for step in (-1, 0, 1))
            best[owner] = max(score, best.get(owner, 0.0))
        return sorted(best.items(), key=lambda pair: -pair[1])

    def _candidates(self, peaks: Fingerprint) -> Iterator[tuple[int, int]]:
        """Pairs (position, offset in frames) for which most hashes vote."""
        hashes, frames = _hashes(peaks)
        order = np.argsort(hashes)  # sorted look-ups stay in one part of memory
        hashes, frames = hashes[order], frames[order]
        first = np.searchsorted(self._hashes, hashes, "left")
        counts = np.searchsorted(self._hashes, hashes, "right") - first
        # The ranges [first, first + count) of all hashes, one after the other.
        total = int(counts.sum())
        entries = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
        offsets = self._frames[entries] - np.repeat(frames, counts) + _OFFSET_ZERO
        votes = np.sort(self._owners[entries] << 32 | offsets)  # the owner in the high half of an integer
        _, start, number = np.unique(votes // _TIME_CELL, return_index=True, return_counts=True)
        best = np.argsort(-number, kind="stable")[:_MAX_CANDIDATES]
        for cell in best[number[best] > 1]:  # a single vote is chance
            vote = int(votes[start[cell] + number[cell] // 2])  # the median of its offsets
            yield vote >> 32, (vote & 0xFFFFFFFF) - _OFFSET_ZERO


def _hashes(peaks: Fingerprint) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """Hash of every triple of neighbouring peaks, of its three bins and two time steps; and its first frame."""
    frames, bins = (peaks >> 8).astype(np.int64), (peaks & 255).astype(np.uint64)
    hashes, starts = [np.zeros(0, np.uint32)], [np.zeros(0, np.int64)]
    for second, third in _TRIPLES:
        count = max(0, len(peaks) - third)
        a, b, c = (slice(step, step + count) for step in (0, second, third))
        is_near = frames[c] - frames[a] < _TRIPLE_FRAMES
        steps = [((frames[part] - frames[a]) // _TIME_CELL).astype(np.uint64) for part in (b, c)]
        key = bins[a] | bins[b] << np.uint64(8) | bins[c] << np.uint64(16) | steps[0] << np.uint64(24)
        key |= steps[1] << np.uint64(29)
        # Fibonacci hashing: the high bits of a product with 2**64 over the golden ratio.
        mixed = (key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
        hashes.append(mixed[is_near].astype(np.uint32))
        starts.append(frames[a][is_near])
    return np.concatenate(hashes), np.concatenate(starts)


def dice_score(first: Fingerprint, second: Fingerprint, offset: int) -> float:
    """Dice coefficient of the peaks of two fingerprints where they overlap; 0 where that is too short.

    Args:
        first: Fingerprint, (P,).
        second: Fingerprint, (P',).
        offset: Frames by which ``first`` is moved before peaks are compared, within one frame.
    """
    moved, fixed = first.astype(np.int64) + 256 * offset, second.astype(np.int64)
    low, high = max(moved[0], fixed[0]) >> 8, min(moved[-1], fixed[-1]) >> 8
    shorter = min(int(peaks[-1] >> 8) - int(peaks[0] >> 8) for peaks in (first, second))
    if high - low < min(_MIN_FRAMES, _MIN_SHARE * shorter):
        return 0.0
    moved, fixed = (peaks[slice(*np.searchsorted(peaks, (low << 8, (high + 1) << 8)))] for peaks in (moved, fixed))
    coincide = np.zeros(len(moved), np.bool_)
    for jitter in (-256, 0, 256):  # a frame earlier, the same frame, a frame later
        nearest = np.searchsorted(fixed, moved + jitter)
        coincide |= fixed[np.minimum(nearest, len(fixed) - 1)] == moved + jitter
    common = int(coincide.sum())
    return 2 * common / (len(moved) + len(fixed)) if common >= _MIN_PEAKS else 0.0
