"""Random pairs of 4-s excerpts from a packed corpus, beside reading them from the files it was packed from.

Ours is what a loader worker does: draw a pair, look whether it is silent, read it, in batches. The others read pairs of
the same tracks at starts drawn beforehand: soundfile seeks in the original file, librosa decodes it whole, once for the
two excerpts of a pair. Neither looks at silence, and soundfile does not resample. Originals in wav, which nobody keeps
large corpora in, are made Ogg Vorbis first. One process, one core, and files in the memory of the system everywhere.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import numpy.typing as npt
import soundfile
from frame import Measurement, Settings, alternated
from real_runs import packed

from musictf.audio.spectrogram import LogMelConfig
from musictf.datasets.base import Track
from musictf.models.backbone import Backbone
from musictf.packing.packed import Packed
from musictf.pretraining.pairs import PairConfig, Pairs, pair_starts

TRACKS, QUICK_TRACKS, BATCH = 90, 8, 128
PAIRS = {"ours": 8192, "soundfile": 128, "librosa": 16}
TARGET_SEEK, TARGET_WHOLE = 30.0, 1000.0

Excerpt = npt.NDArray[np.float32]
Place = tuple[Track, tuple[int, int]]  # a track, and the samples at which the views of a pair start


def measure(settings: Settings) -> list[Measurement]:
    """Time the three in turn, each on as many pairs as it can do in a second or so."""
    numbers = {name: 4 if settings.quick else number for name, number in PAIRS.items()}
    front_end, length = LogMelConfig(), Backbone().num_samples
    with packed(settings.corpus, QUICK_TRACKS if settings.quick else TRACKS) as folder:
        tracks = [compressed(track, folder) for track in Packed(root=str(folder)).all_tracks()]
        pairs = Pairs(tracks, PairConfig(), front_end, length, seed=0, batch_size=BATCH)
        examples = itertools.count()
        drawn = list(
            itertools.islice(places(tracks, pairs.sampler, front_end.sample_rate, length), numbers["soundfile"])
        )
        runs: dict[str, Callable[[], object]] = {
            "ours": lambda: ours(pairs, list(itertools.islice(examples, numbers["ours"]))),
            "soundfile": lambda: [seek(place, front_end.sample_rate, length) for place in drawn],
            "librosa": lambda: [whole(place, front_end.sample_rate, length) for place in drawn[: numbers["librosa"]]],
        }
        for run in runs.values():  # whoever comes first would pay for imports, maps and disks
            run()
        seconds = alternated(runs, 1 if settings.quick else 5)
    return rows({name: numbers[name] / value for name, value in seconds.items()}, tracks)


def compressed(track: Track, folder: Path) -> Track:
    """A track whose original is compressed, if need be by a copy in a folder."""
    if track.audio.suffix != ".wav":
        return track
    waveform, sample_rate = soundfile.read(track.audio, dtype="float32")
    path = folder / f"{track.track_id}.ogg"
    path.parent.mkdir(parents=True, exist_ok=True)  # names of tracks may have slashes
    soundfile.write(path, waveform, sample_rate)
    return replace(track, audio=path)


def ours(pairs: Pairs, examples: Sequence[int]) -> None:
    """Read examples in batches."""
    for start in range(0, len(examples), BATCH):
        pairs.__getitems__(list(examples[start : start + BATCH]))


def places(tracks: Sequence[Track], sampler: Any, sample_rate: int, length: int) -> Iterator[Place]:
    """Tracks in the order of training, each with two starts in samples."""
    generator = np.random.default_rng(0)
    for slot in itertools.count():
        track = tracks[sampler(slot)]
        yield track, pair_starts(track.slots[0].num_samples - length, PairConfig(), sample_rate, generator)


def seek(place: Place, sample_rate: int, length: int) -> list[Excerpt]:
    """Both excerpts of a pair by soundfile, mono at the rate of the file."""
    track, starts = place
    excerpts = []
    for start in starts:
        with soundfile.SoundFile(track.audio) as file:
            file.seek(min(file.frames, start * file.samplerate // sample_rate))
            frames = file.read(length * file.samplerate // sample_rate, dtype="float32", always_2d=True)
        excerpts.append(frames.mean(axis=1))
    return excerpts


def whole(place: Place, sample_rate: int, length: int) -> list[Excerpt]:
    """Both excerpts of a pair, cut out of the whole track by librosa."""
    track, starts = place
    waveform, _ = librosa.load(track.audio, sr=sample_rate)
    return [waveform[start : start + length] for start in starts]


def rows(speeds: dict[str, float], tracks: Sequence[Track]) -> list[Measurement]:
    """What the speeds say, in pairs a second."""
    forms = Counter(track.audio.suffix[1:] for track in tracks)
    form, _ = forms.most_common(1)[0]
    minutes = sum(track.slots[0].num_samples / track.slots[0].sample_rate for track in tracks) / 60
    about = f"{len(tracks)} tracks of {form}, {minutes:.1f} min"
    others = [
        ("of seeking", "soundfile", "soundfile seeks in the original file", TARGET_SEEK),
        ("of whole files", "librosa", "librosa decodes the original file", TARGET_WHOLE),
    ]
    return [
        Measurement(
            name=name,
            value=speeds["ours"],
            unit="pairs / s / core",
            against=f"{what}: {speeds[side]:.4g} ({about})",
            ratio=speeds["ours"] / speeds[side],
            target=target,
            met=speeds["ours"] / speeds[side] >= target,
        )
        for name, side, what, target in others
    ]
