"""Decode every file of a corpus and read every annotation, before a long run finds out."""

from __future__ import annotations

import numpy as np
import soundfile
from rich.console import Console
from rich.progress import track as progress

from musictf.audio.io import audio_info
from musictf.datasets.base import Dataset, Track
from musictf.errors import InputError


def check(dataset: Dataset) -> None:
    """Print what a corpus holds, and every track that cannot be used, with the reason.

    Raises:
        InputError: at least one track is bad.
    """
    tracks = dataset.all_tracks()
    seconds, bad = 0.0, []
    for track in progress(tracks, f"checking {len(tracks)} tracks", transient=True):
        try:
            seconds += _check(track)
        except InputError as error:
            bad.append(f"{track.track_id}: {error}")
    console = Console(highlight=False, soft_wrap=True)
    splits = ", ".join(f"{name} {sum(t.split == name for t in tracks)}" for name in ("train", "valid", "test"))
    console.print(f"{dataset.label}: {len(tracks)} tracks, {seconds / 3600:.2f} hours; {splits}")
    labels = sorted({name for track in tracks for name in track.labels})
    for name in labels:
        console.print(f"  {name}: {sum(track.labels.get(name) is not None for track in tracks)} tracks")
    for line in bad:
        console.print(f"  bad: {line}", markup=False)
    if bad:
        raise InputError(f"{len(bad)} of {len(tracks)} tracks cannot be used (listed above); mend or remove them")


def _check(track: Track) -> float:
    """Seconds of a track that decodes whole, in every version; its annotations read as well."""
    for path in (track.audio, *track.versions):
        frames = 0
        try:
            for block in soundfile.blocks(str(path), blocksize=1 << 20, dtype="float32"):
                frames += len(block)
                if not np.isfinite(block).all():
                    raise InputError(f"{path}: holds NaN or infinite samples")
        except (soundfile.LibsndfileError, OSError) as error:
            raise InputError(f"{path}: cannot be decoded ({error})") from None
        info = audio_info(path)
        if frames < info.frames:
            raise InputError(f"{path}: breaks off after {frames / info.sample_rate:.1f} of {info.seconds:.1f} s")
    for name in track.labels:
        track.annotation(name)
    return audio_info(track.audio).seconds
