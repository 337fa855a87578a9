"""Checks of single tracks: whether the audio decodes to its end, and whether the annotations parse.

Conventions: levels are RMS over all samples and channels in decibels of full scale; two files hold the same audio if
they decode to the same samples at the same rate, whatever their containers.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from rich.console import Console
from rich.progress import Progress

from musictf.audio.io import audio_info
from musictf.datasets.base import AnnotationFile, Track
from musictf.datasets.parallel import in_threads
from musictf.errors import InputError

# Labels about the music; others (album, licence) are metadata. A label in a file is an annotation too.
ANNOTATIONS = frozenset({"tags", "chords", "beats", "onsets", "key", "genre", "instrument", "tempo"})
_BLOCK_FRAMES = 1 << 20  # 24 s of audio at 44.1 kHz
# Lines in libsndfile's log about a wav, aiff or ogg file that ends too soon; it reads such files without an error.
_CUT = re.compile(r"^ *(data|SSND) *: \d+ \(should be \d+\)|Last page lacks an end-of-stream", re.MULTILINE)


@dataclass(frozen=True)
class Sound:
    """Properties of an audio file.

    Attributes:
        seconds: Duration.
        sample_rate: In hertz.
        channels: Number of channels.
        is_cut: The file ends before the end that its header states, as after a download that broke off.
        level: RMS level in decibels of full scale; only of a decoded file.
        digest: Digest of rate, channels and samples; only of a decoded file.
    """

    seconds: float
    sample_rate: int
    channels: int
    is_cut: bool = False
    level: float = 0.0
    digest: str = ""


@dataclass(frozen=True)
class Finding:
    """Result of the checks of one track.

    Attributes:
        track: The track.
        sound: Its audio, or None if it is missing or does not decode.
        annotated: Names of its annotations that parse.
        is_missing: An audio file of it does not exist.
        faults: Why it cannot be used, one reason each.
    """

    track: Track
    sound: Sound | None
    annotated: frozenset[str]
    is_missing: bool
    faults: tuple[str, ...]

    @property
    def is_unannotated(self) -> bool:
        """Whether it has no annotation; metadata do not count."""
        return not any(is_annotation(name, value) for name, value in self.track.labels.items())


def audit(tracks: Sequence[Track], whole: bool = True) -> list[Finding]:
    """Check every track, on all cores.

    Args:
        tracks: The tracks.
        whole: Decode every file; else only read its header.

    Returns:
        One result a track, in the order of the tracks.
    """
    read = decoded if whole else _header
    with Progress(console=Console(stderr=True), transient=True) as progress:
        return in_threads(lambda track: check_track(track, read), tracks, progress, f"checking {len(tracks)} tracks")


def decoded(path: Path) -> Sound:
    """Properties of a file that is decoded to its end.

    Raises:
        InputError: it does not decode, breaks off, or contains values that are not finite.
    """
    info = audio_info(path)
    frames, energy, digest = 0, 0.0, hashlib.sha256()
    try:
        with soundfile.SoundFile(str(path)) as file:
            is_cut = bool(_CUT.search(file.extra_info))
            # Not soundfile.blocks(): for an mp3 that breaks off it returns as many frames as the header states.
            while len(block := file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
                frames += len(block)
                energy += float(np.square(block, dtype=np.float64).sum())
                digest.update(np.ascontiguousarray(block).data)
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{path}: cannot be decoded ({' '.join(str(error).split())})") from None
    # NaN and infinity survive in float files only; one of them makes the energy not finite.
    if not math.isfinite(energy):
        raise InputError(f"{path}: holds NaN or infinite samples")
    if frames < info.frames:
        raise InputError(f"{path}: breaks off after {frames / info.sample_rate:.1f} of {info.seconds:.1f} s")
    # Channels are averaged in power, not mixed: opposite channels would cancel to silence.
    level = 10 * math.log10(max(energy / (frames * info.channels), 1e-20))
    # Equal samples at another rate are another sound.
    identity = f"{info.sample_rate} {info.channels} {digest.hexdigest()}"
    return Sound(frames / info.sample_rate, info.sample_rate, info.channels, is_cut, level, identity)


def is_annotation(name: str, value: Any) -> bool:
    """Whether a label is an annotation of the music rather than metadata."""
    return value is not None and (name in ANNOTATIONS or isinstance(value, AnnotationFile))


def check_track(track: Track, read: Callable[[Path], Sound]) -> Finding:
    """Check the audio files and annotations of one track.

    Args:
        track: The track.
        read: Reads an audio file, or its header only.
    """
    missing = [path for path in (track.audio, *track.versions) if not path.is_file()]
    faults = [f"{path}: does not exist" for path in missing]
    sounds: dict[Path, Sound] = {}
    # A set: a file that is listed twice is read once.
    for path in {track.audio, *track.versions} - set(missing):
        try:
            sounds[path] = read(path)
        except InputError as error:
            faults.append(str(error))
    annotated = set()
    for name in track.labels:
        try:
            if track.annotation(name) is not None:
                annotated.add(name)
        except InputError as error:
            faults.append(str(error))
    return Finding(track, sounds.get(track.audio), frozenset(annotated), bool(missing), tuple(faults))


def _header(path: Path) -> Sound:
    info = audio_info(path)
    with soundfile.SoundFile(str(path)) as file:
        return Sound(info.seconds, info.sample_rate, info.channels, bool(_CUT.search(file.extra_info)))
