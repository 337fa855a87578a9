"""A look at every track of a corpus: does its audio decode to the end, do its annotations read?

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

# Labels that say what is heard; others (album, licence) say whose it is. What stands in a file counts as well.
ANNOTATIONS = frozenset({"tags", "chords", "beats", "onsets", "key", "genre", "instrument", "tempo"})
_BLOCK_FRAMES = 1 << 20
# How libsndfile's log tells of a wav, aiff or ogg file that ends too soon; it reads on as if nothing were wrong.
_CUT = re.compile(r"^ *(data|SSND) *: \d+ \(should be \d+\)|Last page lacks an end-of-stream", re.MULTILINE)


@dataclass(frozen=True)
class Sound:
    """What a file holds; ``level`` and ``digest`` only where it was decoded.

    ``is_cut``: the file ends before its own header says it does, as one does whose download broke off.
    """

    seconds: float
    sample_rate: int
    channels: int
    is_cut: bool = False
    level: float = 0.0
    digest: str = ""


@dataclass(frozen=True)
class Finding:
    """What was found out about one track.

    Attributes:
        track: The track.
        sound: Its audio, or None where it is missing or does not decode.
        annotated: Names of the annotations that it has and that read.
        is_missing: Audio of it is not there.
        faults: Why it cannot be used, one reason each.
    """

    track: Track
    sound: Sound | None
    annotated: frozenset[str]
    is_missing: bool
    faults: tuple[str, ...]

    @property
    def is_bare(self) -> bool:
        """Whether nothing that is heard in it is annotated."""
        return not any(is_annotation(name, value) for name, value in self.track.labels.items())


def audit(tracks: Sequence[Track], whole: bool = True) -> list[Finding]:
    """Look at every track, on all cores, in the order of the tracks.

    Args:
        tracks: The tracks.
        whole: Decode every file; else only read its header.
    """
    read = decoded if whole else _header

    def look(track: Track) -> Finding:
        return _finding(track, read)

    with Progress(console=Console(stderr=True), transient=True) as progress:
        return in_threads(look, tracks, progress, f"checking {len(tracks)} tracks")


def decoded(path: Path) -> Sound:
    """What a file holds, decoded to its end.

    Raises:
        InputError: it does not decode, breaks off, or holds values that are not finite.
    """
    info = audio_info(path)
    frames, energy, digest = 0, 0.0, hashlib.sha256()
    try:
        with soundfile.SoundFile(str(path)) as file:
            is_cut = bool(_CUT.search(file.extra_info))
            # Not soundfile.blocks(): of an mp3 that breaks off it hands out as many frames as the header states.
            while len(block := file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
                frames += len(block)
                energy += float(np.square(block, dtype=np.float64).sum())
                digest.update(np.ascontiguousarray(block).data)
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{path}: cannot be decoded ({' '.join(str(error).split())})") from None
    if not math.isfinite(energy):
        raise InputError(f"{path}: holds NaN or infinite samples")
    if frames < info.frames:
        raise InputError(f"{path}: breaks off after {frames / info.sample_rate:.1f} of {info.seconds:.1f} s")
    level = 10 * math.log10(max(energy / (frames * info.channels), 1e-20))
    identity = f"{info.sample_rate} {info.channels} {digest.hexdigest()}"
    return Sound(frames / info.sample_rate, info.sample_rate, info.channels, is_cut, level, identity)


def is_annotation(name: str, value: Any) -> bool:
    """Whether a label annotates what is heard."""
    return value is not None and (name in ANNOTATIONS or isinstance(value, AnnotationFile))


def _finding(track: Track, read: Callable[[Path], Sound]) -> Finding:
    faults: list[str] = []
    lacking = [path for path in (track.audio, *track.versions) if not path.is_file()]
    faults += [f"{path}: does not exist" for path in lacking]
    sounds: dict[Path, Sound] = {}
    for path in {track.audio, *track.versions} - set(lacking):
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
    return Finding(track, sounds.get(track.audio), frozenset(annotated), bool(lacking), tuple(faults))


def _header(path: Path) -> Sound:
    info = audio_info(path)
    with soundfile.SoundFile(str(path)) as file:
        return Sound(info.seconds, info.sample_rate, info.channels, bool(_CUT.search(file.extra_info)))
