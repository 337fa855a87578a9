"""NSynth: four-second notes of sampled instruments, eleven families.

Engel, Resnick, Roberts, Dieleman, Norouzi, Eck and Simonyan, "Neural audio synthesis of musical notes with WaveNet
autoencoders", ICML 2017.

Layout: ``nsynth-{train,valid,test}/examples.json`` (one entry a note) and ``nsynth-*/audio/<note>.wav``.

Conventions: the official folders are the splits; ``dataset.splits=[valid,test]`` reads only those. Notes of one
instrument are a group. No training instrument is in another split, but valid and test share instruments: selection on
valid is therefore not selection on unseen instruments.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from musictf.datasets.base import SPLITS, Dataset, Track, single_root
from musictf.datasets.layout import index_file
from musictf.datasets.tabular import read_object
from musictf.errors import InputError


@dataclass(kw_only=True)
class NSynth(Dataset):
    """Notes with the ``instrument`` family and the MIDI ``pitch``.

    Attributes:
        root: Folder that holds ``nsynth-train``, ``nsynth-valid`` and ``nsynth-test``.
        splits: Splits of the copy.
    """

    name: ClassVar[str] = "nsynth"
    citation: ClassVar[str] = "Engel et al.: Neural audio synthesis of musical notes with WaveNet, ICML 2017"
    license: ClassVar[str] = "audio and annotations: CC BY 4.0"
    homepage: ClassVar[str] = "https://magenta.tensorflow.org/datasets/nsynth: the three json/wav archives"
    published: ClassVar[dict[str, int]] = {"tracks": 305_979, "train": 289_205, "valid": 12_678, "test": 4_096}
    annotations: ClassVar[tuple[str, ...]] = ("instrument",)  # "pitch" serves no task

    root: Any = None
    splits: list[str] = field(default_factory=lambda: list(SPLITS))

    def read_tracks(self) -> list[Track]:
        root = single_root(self.root, self.name)
        unknown = [split for split in self.splits if split not in SPLITS]
        if unknown or not self.splits:
            raise InputError(f"dataset.splits={self.splits} must be some of {', '.join(SPLITS)}")
        tracks = []
        for split in self.splits:
            path = index_file(root, self.name, f"nsynth-{split}/examples.json")
            # Sorted: the order of the entries is no part of the format.
            tracks += [_track(name, note, split, path) for name, note in sorted(read_object(path).items())]
        return tracks


def _track(name: str, note: dict[str, Any], split: str, path: Path) -> Track:
    try:
        # The family is the class of the task, the single instrument the group.
        labels = {"instrument": str(note["instrument_family_str"]), "pitch": int(note["pitch"])}
        group = str(note["instrument_str"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: note {name!r} lacks a field ({error})") from None
    return Track(track_id=name, audio=path.parent / "audio" / f"{name}.wav", split=split, group=group, labels=labels)
