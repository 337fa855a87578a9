"""Any corpus that mirdata reads: ``dataset=mirdata dataset.name=rwc_jazz dataset.root=FOLDER``.

Bittner, Fuentes, Rubinstein, Jansson, Choi and Kell, "mirdata: software for reproducible usage of datasets",
ISMIR 2019.

Conventions: mirdata finds and reads the files, and its annotations become our labels: chords (overlaps trimmed as in
``beatles``), beats, the key with the longest duration, tempo, genre, instrument, tags and artist. Beats keep positions
only if all of them are counted from 1 in the bar; mirdata's 0 means outside of any bar. Splits are those of mirdata,
with a tenth of the training groups for validation if it has no validation split; without any they are derived. A group
is an artist, or a track where mirdata names no artist. A track of its index without audio is not listed. Nothing is
downloaded. If a corpus has its own module here, use that one: it handles albums, works and duplicates.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from musictf.annotations import Beats, Chords, assemble_beats, assemble_chords, key_name, longest_key
from musictf.datasets.base import AnnotationFile, Dataset, Track, derived_split, single_root
from musictf.errors import InputError

# Attributes of mirdata's tracks, by what they contain, the usual name first.
AUDIO = ("audio_path", "audio_mix_path", "audio_mic_path", "mix_path")
ANNOTATIONS = {
    "beats": ("beats",),
    "chords": ("chords", "chords_full", "leadsheet_chords"),
    "key": ("key", "keys", "key_mode"),
}
# Labels that are plain values in mirdata too, with their type here.
VALUES = {"tempo": float, "genre": str, "instrument": str, "artist": str}
# Our splits by mirdata's names.
SPLITS = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "dev": "valid",
    "test": "test",
}
# Time units of mirdata's annotations.
PER_SECOND = {"s": 1.0, "ms": 1000.0}


@dataclass(kw_only=True)
class Mirdata(Dataset):
    """A corpus of mirdata, by the name that mirdata gives it.

    Attributes:
        name: Name of a corpus in ``mirdata.list_datasets()``.
        root: Its folder, mirdata's ``data_home``.
        version: Version of its index.
    """

    citation: ClassVar[str] = "R. Bittner, M. Fuentes, D. Rubinstein, A. Jansson, K. Choi, T. Kell: mirdata. ISMIR 2019"
    license: ClassVar[str] = "that of the corpus: mirdata.initialize(NAME).license()"
    homepage: ClassVar[str] = "https://mirdata.readthedocs.io names the source of each corpus"

    # A key of dataset.* here, and no constant of the class as in all other corpora: dataset.name=beatles.
    name: str = "mirdata"  # type: ignore[misc]
    root: Any = None
    version: str = "default"

    def read_tracks(self) -> list[Track]:
        module = _module()
        names = list(module.list_datasets())
        if self.name == type(self).name:
            raise InputError(f"dataset=mirdata needs dataset.name=NAME: one of {', '.join(names)}")
        if self.name not in names:
            near = difflib.get_close_matches(self.name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(names)}"
            raise InputError(f"dataset.name={self.name!r} is no corpus of mirdata: {hint}")
        home = str(single_root(self.root, "mirdata"))
        source = _Source(self.name, home, self.version)
        tracks = [track for track_id in _track_ids(source) if (track := _track(source, track_id)) is not None]
        if not tracks:
            raise InputError(f"mirdata:{self.name} names no audio file that can be read as one track")
        if any(track.split == "valid" for track in tracks):
            return tracks
        # Without a validation split a tenth of the training groups is taken for it.
        held_out = {track.group for track in tracks if derived_split(track.group) == "valid"}
        return [
            replace(track, split="valid") if track.split == "train" and track.group in held_out else track
            for track in tracks
        ]

    @property
    def label(self) -> str:
        return f"mirdata:{self.name}"


@dataclass(frozen=True)
class _Source:
    """A corpus of mirdata; another process can open it with these values, while the loader cannot be pickled."""

    name: str
    home: str
    version: str


def _module() -> ModuleType:
    try:
        return importlib.import_module("mirdata")
    except ImportError as error:
        raise InputError(f"dataset=mirdata needs mirdata ({error}): pip install musictf[mirdata]") from None


@lru_cache(maxsize=4)
def _corpus(source: _Source) -> Any:
    """The loader of mirdata; its index may have tens of thousands of entries, and is read once."""
    try:
        return _module().initialize(source.name, data_home=source.home, version=source.version)
    except ValueError as error:
        raise InputError(f"mirdata:{source.name}: {_line(error)} (dataset.version={source.version})") from None
    except ImportError as error:
        raise InputError(f"mirdata:{source.name} needs another package ({error})") from None


def _track_ids(source: _Source) -> list[str]:
    """Names of all tracks of the index, which mirdata does not always include."""
    try:
        return list(_corpus(source).track_ids)
    except FileNotFoundError as error:
        fetch = f"import mirdata; mirdata.initialize('{source.name}', data_home='{source.home}').download(['index'])"
        raise InputError(f'mirdata:{source.name} has no index yet ({_line(error)}): python -c "{fetch}"') from None
    except AttributeError as error:
        raise InputError(f"mirdata:{source.name}: {_line(error)}") from None


def _track(source: _Source, track_id: str) -> Track | None:
    """A track of mirdata as a `Track`, or None if mirdata names no audio for it."""
    track = _corpus(source).track(track_id)
    audio = next((path for name in AUDIO if (path := getattr(track, name, None))), None)
    if audio is None:
        return None
    labels: dict[str, Any] = {}
    for label, names in ANNOTATIONS.items():
        # type(track): on the track itself, hasattr would read the annotation.
        for name in [name for name in names if hasattr(type(track), name)][:1]:
            # The file of an annotation: beats_path, key_path or keys_path, or one that has several annotations.
            stem = name.split("_")[0].rstrip("s")
            keys = (f"{name}_path", f"{stem}_path", f"{stem}s_path", f"{name}_full_path", "lab_full_path", "jams_path")
            path = next((Path(path) for key in keys if (path := getattr(track, key, None))), None)
            if path is not None:
                labels[label] = AnnotationFile(path, partial(_read, source=source, track_id=track_id, name=name))
    labels |= _values(track, f"mirdata:{source.name}, track {track_id}")
    group = labels.get("artist") or track_id
    split = SPLITS.get(str(_attribute(track, "split", source.name)).lower()) or derived_split(group)
    return Track(track_id=track_id, audio=Path(audio), split=split, group=group, labels=labels)


def _attribute(track: Any, name: str, corpus: str) -> Any:
    """An attribute that mirdata may read from a metadata file; None where the corpus has none."""
    try:
        return getattr(track, name, None)
    except FileNotFoundError as error:
        raise InputError(f"mirdata:{corpus} lacks a file that states {name!r}: {_line(error)}") from None


def _values(track: Any, where: str) -> dict[str, Any]:
    """Labels that are plain values, without empty ones."""
    corpus = where.partition(",")[0].removeprefix("mirdata:")
    labels: dict[str, Any] = {}
    for name, kind in VALUES.items():
        value = _attribute(track, name, corpus)
        if isinstance(value, (str, int, float)) and str(value).strip():
            labels[name] = _value(value, kind, f"{where}: {name}")
    tags = _attribute(track, "tags", corpus)
    if tags:
        labels["tags"] = [str(tag) for tag in ([tags] if isinstance(tags, str) else tags)]
    return labels


def _value(value: Any, kind: type, where: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise InputError(f"{where} is {value!r}, not a {kind.__name__}") from None


def _read(path: Path, *, source: _Source, track_id: str, name: str) -> Any:
    """An annotation that mirdata reads, in our form; None if the track has none after all."""
    where = f"{path} (mirdata:{source.name}, track {track_id})"
    try:
        value = getattr(_corpus(source).track(track_id), name)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise InputError(f"{where}: mirdata cannot read {name!r} ({_line(error)})") from None
    return None if value is None else CONVERTERS[name](value, where)


def _beats(value: Any, where: str) -> Beats:
    """Beats of a `mirdata.annotations.BeatData` (``times``, ``time_unit``, ``positions``, ``position_unit``)."""
    times = _seconds(value.times, value.time_unit, where)
    positions = None if value.positions is None else np.asarray(value.positions)
    # Position 0 is outside of any bar.
    is_counted = positions is not None and value.position_unit == "bar_index" and bool((positions >= 1).all())
    numbers = positions.astype(int).tolist() if is_counted and positions is not None else [None] * len(times)
    rows = [(f"{where}, beat {index + 1}", float(time), numbers[index]) for index, time in enumerate(times)]
    return assemble_beats(rows, where)


def _chords(value: Any, where: str) -> Chords:
    """Chords of a `mirdata.annotations.ChordData` (``intervals``, ``labels``), whose unit is always the second."""
    rows = zip(np.asarray(value.intervals, dtype=np.float64), value.labels, strict=True)
    numbered = enumerate(rows, start=1)
    return assemble_chords(
        ((f"{where}, chord {number}", float(start), float(end), label) for number, ((start, end), label) in numbered),
        where,
        overlaps="trim",
    )


def _key(value: Any, where: str) -> str | None:
    """Key of a `mirdata.annotations.KeyData` (``intervals``, ``keys``), of a name, or of a list of names."""
    if isinstance(value, str):
        return key_name(value)
    if isinstance(value, list):
        return key_name(value[0]) if len(value) == 1 else None
    intervals = _seconds(value.intervals, value.interval_unit, where)
    return longest_key([(float(start), float(end)) for start, end in intervals], value.keys)


def _seconds(times: Any, unit: str, where: str) -> Any:
    if unit not in PER_SECOND:
        raise InputError(f"{where}: times are in {unit!r}, not in seconds")
    return np.asarray(times, dtype=np.float64) / PER_SECOND[unit]


def _line(error: Exception) -> str:
    """The first line of a message; mirdata's may have several."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


FORMS: Mapping[str, Callable[[Any, str], Any]] = {"beats": _beats, "chords": _chords, "key": _key}
CONVERTERS = {name: FORMS[label] for label, names in ANNOTATIONS.items() for name in names}
