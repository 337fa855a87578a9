"""One track as a page to listen to: audio, spectrogram, annotations and estimates with one cursor, in one HTML file.

Conventions: times in seconds from the start of the track. The page contains everything it needs, audio included, and
loads nothing from the network, so it can be mailed or kept. The audio is FLAC, because MP3 and Ogg delay it by more
than a frame. The template, its style and its two scripts are files beside this module.

Shapes:  N samples   F mel bands   K frames   n positions of a matrix   m pixels of its image   R rows   C columns
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import mir_eval
import numpy as np
import numpy.typing as npt
import soundfile

from musictf.annotations import Beats, Chords
from musictf.errors import InputError
from musictf.files import write_atomically
from musictf.reporting.track_figure import short_chord
from musictf.results.statistics import Floats

RANGE_DB = 70.0  # drawn below the loudest point
PEAK_BINS = 16_384  # of the waveform: several for each pixel of a screen, whatever the length
TILE_COLUMNS = 4_096  # browsers refuse images wider than 8 000 to 30 000 pixels
MATRIX_PIXELS = 512
_FOLDER = Path(__file__).parent
_NO_CHORD, _UNKNOWN_CHORD = -1, -2  # in place of a root; the script reads both
_HERTZ = (125, 250, 500, 1000, 2000, 4000, 8000, 16_000)

Pixels = npt.NDArray[np.uint8]


@dataclass(kw_only=True)
class ListeningTrack:
    """Content of the page of a track; an empty mapping leaves its lanes out.

    Attributes:
        title: Id of the track.
        subtitle: Where it comes from: corpus, backbone.
        waveform: Mono, (N,).
        sample_rate: Hertz.
        log_mel: Level in decibels, lowest band first, (F, K).
        mel_times: Centres of the frames in seconds, evenly spaced, (K,).
        mel_hz: Centre of each band in hertz, (F,); the page shows no frequencies without it.
        chords: Chords by the name of their lane, annotated ones first.
        beats: Beats by the name of their lane.
        onsets: Times in seconds, of note onsets or chord changes, by the name of their lane.
        curves: Times (any number) and values by the name of their lane, each lane scaled to its own range.
        matrices: Times (n,) and cosine similarity between them (n, n) by name; a menu chooses.
    """

    title: str
    subtitle: str = ""
    waveform: npt.NDArray[np.float32]
    sample_rate: int
    log_mel: npt.NDArray[np.floating]
    mel_times: Floats
    mel_hz: Floats | None = None
    chords: Mapping[str, Chords] = field(default_factory=dict)
    beats: Mapping[str, Beats] = field(default_factory=dict)
    onsets: Mapping[str, Floats] = field(default_factory=dict)
    curves: Mapping[str, tuple[Floats, Floats]] = field(default_factory=dict)
    matrices: Mapping[str, tuple[Floats, Floats]] = field(default_factory=dict)


def listening_page(track: ListeningTrack, out: Path) -> Path:
    """Write the page of a track.

    Args:
        track: The track.
        out: The file to write, ``.html``.

    Returns:
        The file written.

    Raises:
        InputError: the waveform is empty, times do not ascend, shapes do not fit, or values are not finite.
    """
    _check(track)
    # Audio beyond full scale is turned down, because FLAC would clip it.
    flac, loudest = io.BytesIO(), max(1.0, float(np.abs(track.waveform).max()))
    soundfile.write(flac, track.waveform / loudest, track.sample_rate, format="FLAC", subtype="PCM_16")
    data = json.dumps(_page_data(track), allow_nan=False, separators=(",", ":"))
    parts = {
        "title": html.escape(track.title),
        "subtitle": html.escape(track.subtitle),
        "style": _asset("listening.css"),
        "lanes": _asset("listening_lanes.js"),
        "script": _asset("listening.js"),
        "flac": base64.b64encode(flac.getvalue()).decode(),
        "data": data.replace("<", "\\u003c"),  # a title with "</script>" would end the script
    }
    # All slots are filled in one pass, so that braces in a title stay braces.
    page = re.sub(r"\{\{(\w+)\}\}", lambda slot: parts[slot[1]], _asset("listening.html"))
    write_atomically(out, page)
    return out


def _asset(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _page_data(track: ListeningTrack) -> dict[str, Any]:
    """Everything that the scripts of the page draw; its keys are those that they read."""
    bin_seconds, peaks = _peaks(track.waveform, track.sample_rate)
    return {
        "duration": len(track.waveform) / track.sample_rate,
        "peaks": base64.b64encode(peaks.tobytes()).decode(),
        "peak_seconds": bin_seconds,
        "spectrogram": _spectrogram(track),
        "lanes": [
            {"kind": "ruler", "name": "", "note": "", "about": "time in seconds"},
            {"kind": "waveform", "name": "Waveform", "note": "", "about": "waveform"},
            {"kind": "spectrogram", "name": "Spectrogram", "note": "mel, 70 dB", "about": "mel spectrogram, 70 dB"},
            *_lanes(track),
        ],
        "matrices": [_matrix(name, *matrix) for name, matrix in track.matrices.items()],
        "bar": "linear-gradient(90deg,"
        + ",".join(f"rgb{tuple(rgb)}" for rgb in _palette("cividis")[::17].tolist())
        + ")",
    }


def _peaks(waveform: npt.NDArray[np.float32], sample_rate: int) -> tuple[float, npt.NDArray[np.int8]]:
    """Length in seconds of a bin of a waveform (N,), and the lowest and highest sample of each bin, (R, 2).

    Samples are shares of the largest one, -127 to 127.
    """
    size = -(-len(waveform) // PEAK_BINS)
    starts = np.arange(0, len(waveform), size)
    extremes = np.stack([np.minimum.reduceat(waveform, starts), np.maximum.reduceat(waveform, starts)], axis=1)
    loudest = float(np.abs(waveform).max()) or 1.0
    return size / sample_rate, np.round(extremes / loudest * 127).astype(np.int8)


def _spectrogram(track: ListeningTrack) -> dict[str, Any]:
    """Tiles of the image with its position in time, and labels of the frequency axis."""
    top = float(track.log_mel.max())
    # An image begins with its top row, so the bands are reversed: (F, K).
    level = np.clip((track.log_mel - top) / RANGE_DB + 1, 0, 1)
    pixels = np.round(level[::-1] * 255).astype(np.uint8)
    firsts = range(0, pixels.shape[1], TILE_COLUMNS)
    tiles = [pixels[:, first : first + TILE_COLUMNS] for first in firsts]
    step = _step(track.mel_times)
    labels: list[tuple[float, str]] = []  # height as a share of the image from its foot, and text
    mel_hz = np.empty(0) if track.mel_hz is None else np.asarray(track.mel_hz, dtype=np.float64)
    for hertz in (hertz for hertz in reversed(_HERTZ) if len(mel_hz) and mel_hz[0] <= hertz <= mel_hz[-1]):
        height = float((np.interp(hertz, mel_hz, np.arange(len(mel_hz))) + 0.5) / len(mel_hz))
        # Labels near an edge or near the label above would be cut off or overlap.
        if 0.05 < height < 0.95 and (not labels or labels[-1][0] - height > 0.1):
            labels.append((round(height, 4), f"{hertz / 1000:g} kHz" if hertz >= 1000 else f"{hertz} Hz"))
    return {
        "start": float(track.mel_times[0]) - step / 2,  # a frame reaches half a step to either side of its centre
        "step": step,
        "tiles": [
            {"src": _png(tile, "magma"), "first": first, "columns": tile.shape[1]}
            for first, tile in zip(firsts, tiles, strict=True)
        ],
        "rows": labels,
    }


def _step(times: Floats) -> float:
    """Seconds between the frames of an evenly spaced axis."""
    return float((times[-1] - times[0]) / (len(times) - 1))


def _lanes(track: ListeningTrack) -> list[dict[str, Any]]:
    """Lanes of chords, beats, onsets and curves; ``about`` is the text that screen readers read."""
    lanes: list[dict[str, Any]] = []
    lane: dict[str, Any]
    for name, chords in track.chords.items():
        roots = [label.partition(":")[0].partition("/")[0] for label in chords.labels]
        lane = {"kind": "chords", "name": name, "note": "chords", "about": f"{name}: {_count(chords.labels, 'chord')}"}
        lane |= {"starts": _rounded(chords.intervals[:, 0]), "ends": _rounded(chords.intervals[:, 1])}
        # Where the full name does not fit, the page shows the name of the root.
        lane |= {"labels": [short_chord(label) for label in chords.labels]}
        lanes.append(lane | {"names": [short_chord(r) for r in roots], "roots": [_fifths(root) for root in roots]})
    for name, beats in track.beats.items():
        downs = None if beats.positions is None else (beats.positions == 1).astype(int).tolist()
        bars = "" if beats.downbeats is None else f", {_count(beats.downbeats, 'downbeat')}"
        note = "beats" if downs is None else "beats, downbeats taller"
        lane = {"kind": "beats", "name": name, "note": note, "about": f"{name}: {_count(beats.times, 'beat')}{bars}"}
        lanes.append(lane | {"times": _rounded(beats.times), "downs": downs})
    for name, times in track.onsets.items():
        lane = {"kind": "onsets", "name": name, "note": str(len(times)), "about": f"{name}: {_count(times, 'time')}"}
        lanes.append(lane | {"times": _rounded(times)})
    for name, (times, values) in track.curves.items():
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
        span = f"{low:.3g} to {high:.3g}".replace("-", "−")  # a minus sign, not a hyphen
        lane = {"kind": "curve", "name": name, "note": span, "about": f"{name}: {span}", "low": low, "high": high}
        # Five digits are more than a screen shows, and keep the page small.
        lanes.append(lane | {"times": _rounded(times), "values": [float(f"{v:.5g}") for v in values.tolist()]})
    return lanes


def _fifths(root: str) -> int:
    """Steps from C along the circle of fifths, 0 to 11; below 0 without a root.

    Example:
        >>> [_fifths(root) for root in ("C", "G", "F", "F#", "Gb", "N", "X")]
        [0, 1, 11, 6, 6, -1, -2]
    """
    if root in {"N", "X"}:
        return _NO_CHORD if root == "N" else _UNKNOWN_CHORD
    return int(mir_eval.chord.pitch_class_to_semitone(root)) * 7 % 12


def _count(entries: Iterable[Any], noun: str) -> str:
    number = len(list(entries))
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _rounded(times: Floats) -> list[float]:
    """Times to a tenth of a millisecond, a three-hundredth of a frame."""
    return np.round(np.asarray(times, dtype=np.float64), 4).tolist()


def _matrix(name: str, times: Floats, similarity: Floats) -> dict[str, Any]:
    """Image of a similarity matrix (n, n) with time upwards, and the span of its axes in seconds."""
    # Edges lie half way between the times; the outer ones as far from the ends.
    edges = np.concatenate([[1.5 * times[0] - 0.5 * times[1]], (times[1:] + times[:-1]) / 2, [0.0]])
    edges[-1] = 1.5 * times[-1] - 0.5 * times[-2]
    shares = _shares(edges)
    shrunk = shares @ similarity @ shares.T  # (m, n) @ (n, n) @ (n, m)
    # Without the diagonal, which is always 1, and the outermost percent: few pixels would use up the colour scale.
    rest = shrunk[~np.eye(len(shrunk), dtype=bool)]
    low, high = (float(value) for value in np.percentile(rest, [1, 99]))
    pixels = np.round(np.clip((shrunk - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)
    span = {"start": float(edges[0]), "end": float(edges[-1]), "low": low, "high": high}
    return {"name": name, "src": _png(pixels[::-1], "cividis")} | span


def _shares(edges: Floats) -> Floats:
    """Share of each pixel that every position fills, (m, n); rows sum to 1.

    The identity for a small and even axis, given its edges (n + 1,).
    """
    widths = np.diff(edges)
    even = np.allclose(widths, widths.mean(), rtol=0.01)
    number = len(widths) if even and len(widths) <= MATRIX_PIXELS else MATRIX_PIXELS
    pixels = np.linspace(edges[0], edges[-1], number + 1)
    begins = np.maximum(pixels[:-1, None], edges[None, :-1])
    ends = np.minimum(pixels[1:, None], edges[None, 1:])
    overlap = np.maximum(0.0, ends - begins)
    return np.asarray(overlap / overlap.sum(axis=1, keepdims=True))


def _palette(name: str) -> Pixels:
    """Red, green, blue of 256 levels, (256, 3)."""
    return np.asarray(matplotlib.colormaps[name](np.arange(256), bytes=True)[:, :3], dtype=np.uint8)


def _png(pixels: Pixels, palette: str) -> str:
    """Data URL of a PNG of pixels (R, C) with a palette: one byte a pixel before compression.

    References:
        W3C, "Portable Network Graphics (PNG) Specification", 2003.
    """
    rows, columns = pixels.shape
    header = struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)  # eight bits, colours of a palette
    # Each line begins with the number of its filter; 0 is none.
    lines = np.concatenate([np.zeros((rows, 1), dtype=np.uint8), pixels], axis=1)
    chunks = {
        b"IHDR": header,
        b"PLTE": _palette(palette).tobytes(),
        b"IDAT": zlib.compress(lines.tobytes(), 9),
        b"IEND": b"",
    }
    png = b"\x89PNG\r\n\x1a\n"
    for kind, content in chunks.items():
        png += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _check(track: ListeningTrack) -> None:
    """Refuse content that the scripts of the page could not draw, before anything is written."""
    where = f"listening page of {track.title!r}"
    waveform = np.asarray(track.waveform)
    if waveform.ndim != 1 or not waveform.size:
        raise InputError(f"{where}: the waveform has shape {waveform.shape}; give one channel of at least one sample")
    if track.sample_rate <= 0:
        raise InputError(f"{where}: a sample rate is more than 0 Hz, found {track.sample_rate}")
    _check_finite(waveform, f"{where}: waveform")
    _check_spectrogram(track, where)
    for name, chords in track.chords.items():
        what = f"{where}: chords {name!r}"
        _check_shape(chords.intervals, (len(chords.labels), 2), what)
        starts, ends = chords.intervals[:, 0], chords.intervals[:, 1]
        _check_times(starts, what)
        _check_times(ends, what)
        if (ends <= starts).any():
            raise InputError(f"{what}: an interval ends before its start at {starts[ends <= starts][0]:g} s")
    for name, beats in track.beats.items():
        _check_times(beats.times, f"{where}: beats {name!r}")
    for name, onsets in track.onsets.items():
        _check_times(onsets, f"{where}: onsets {name!r}")
    for name, (times, values) in track.curves.items():
        _check_times(times, f"{where}: curve {name!r}")
        _check_shape(values, np.shape(times), f"{where}: curve {name!r}")
    for name, (times, similarity) in track.matrices.items():
        what = f"{where}: matrix {name!r}"
        _check_times(times, what, least=2)
        _check_shape(similarity, (len(times), len(times)), what)
        if (largest := np.abs(similarity).max()) > 1.001:  # single precision exceeds 1 by rounding
            raise InputError(f"{what}: {largest:g} is no cosine similarity, which lies between -1 and 1")


def _check_spectrogram(track: ListeningTrack, where: str) -> None:
    _check_times(track.mel_times, f"{where}: mel_times", least=2)
    bands = len(track.log_mel)
    _check_shape(track.log_mel, (max(1, bands), len(track.mel_times)), f"{where}: log_mel")
    if not np.allclose(np.diff(track.mel_times), _step(track.mel_times), rtol=0.01, atol=1e-4):
        raise InputError(f"{where}: mel_times are not evenly spaced, so they place no image")
    if track.mel_hz is not None:
        _check_times(track.mel_hz, f"{where}: mel_hz")
        _check_shape(track.mel_hz, (bands,), f"{where}: mel_hz")


def _check_times(times: Floats, where: str, least: int = 0) -> None:
    """Refuse times that are not one axis of ascending finite numbers, (n,)."""
    if np.ndim(times) != 1 or len(times) < least:
        raise InputError(f"{where}: expected times (n,), at least {least} of them, found shape {np.shape(times)}")
    _check_finite(times, where)
    falls = np.flatnonzero(np.diff(times) <= 0)
    if len(falls):
        first, second = times[falls[0]], times[falls[0] + 1]
        raise InputError(f"{where}: times must ascend, and {second:g} follows {first:g}")


def _check_shape(values: npt.NDArray[np.floating], shape: tuple[int, ...], where: str) -> None:
    if np.shape(values) != shape:
        raise InputError(f"{where}: expected shape {shape}, found {np.shape(values)}")
    _check_finite(values, where)


def _check_finite(values: npt.NDArray[np.floating], where: str) -> None:
    if not np.isfinite(values).all():
        raise InputError(f"{where}: holds NaN or infinity; find where it comes from")
