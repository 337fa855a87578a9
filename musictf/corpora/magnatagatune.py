"""MagnaTagATune: 25,863 clips of 29 s with tags that players of a game agreed on.

Law, West, Mandel, Bay and Downie, "Evaluation of algorithms using games: the case of music tagging", ISMIR 2009.

Conventions: four partitions of these clips are in use, and scores on different ones are not comparable (their mAP
differs by about .05). ``variant`` selects one, and is part of the label of every row: ``mtt:folders``.

* ``folders``: folders 0-b train, c valid, d-f test, clips without a top tag kept (MARBLE v1; 18,706 / 1,825 / 5,329).
* ``pons2019``: ``train_gt_mtt.tsv val_gt_mtt.tsv test_gt_mtt.tsv`` of github.com/jordipons/musicnn-training, in
  ``data/index/mtt`` (musicnn, CLMR): made by the same folder rule, read here from the published files.
* ``won2020``: ``train.npy valid.npy test.npy`` of github.com/minzwon/sota-music-tagging-models, in ``split/mtat``:
  clips without a top tag left out (15,247 / 1,529 / 4,332 according to issue 25 there).
* ``lee2017``: ``train_list_pub.cP valid_list_pub.cP test_list_pub.cP`` of github.com/jongpillee/music_dataset_split,
  in ``MTAT_split``: clips without a top tag or shorter than 29.1 s left out (15,244 train).

Tags come from ``annotations_final.csv`` in every variant, synonyms unmerged, as all four do. A clip is named
``artist-album-number-title-start-end.mp3``: its group is the source track, which is all but start and end.
"""

from __future__ import annotations

import io
import pickle
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from musictf.datasets.base import SPLITS, Dataset, Track, single_root
from musictf.datasets.layout import audio_folder, index_file
from musictf.datasets.tabular import read_text, table_rows
from musictf.errors import InputError

# The usual 50 tags, by frequency over all clips; ranks 48 and 49 tie.
TOP_50 = (
    "guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano",
    "ambient", "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male", "singing",
    "vocals", "no vocals", "harpsichord", "loud", "quiet", "flute", "woman", "male vocal", "no vocal", "pop",
    "soft", "sitar", "solo", "man", "classic", "choir", "voice", "new age", "dance", "male voice",
    "female vocal", "beats", "harp", "cello", "no voice", "weird", "country", "metal", "female voice", "choral",
)  # fmt: skip

# The folder rule: the first character of mp3_path.
FOLDER_SPLITS = dict.fromkeys("0123456789ab", "train") | {"c": "valid"} | dict.fromkeys("def", "test")

# Files of the published lists, in the order of SPLITS, and where they are obtained.
LISTS: Mapping[str, tuple[tuple[str, str, str], str]] = {
    "pons2019": (
        ("train_gt_mtt.tsv", "val_gt_mtt.tsv", "test_gt_mtt.tsv"),
        "github.com/jordipons/musicnn-training, data/index/mtt",
    ),
    "won2020": (
        ("train.npy", "valid.npy", "test.npy"),
        "github.com/minzwon/sota-music-tagging-models, split/mtat",
    ),
    "lee2017": (
        ("train_list_pub.cP", "valid_list_pub.cP", "test_list_pub.cP"),
        "github.com/jongpillee/music_dataset_split, MTAT_split",
    ),
}
# Start and end of a clip in seconds, at the end of its name.
CLIP_TIMES = re.compile(r"-\d+-\d+$")


@dataclass(kw_only=True)
class MagnaTagATune(Dataset):
    """Clips with tags, in one of the partitions that papers use.

    Attributes:
        root: Folder with ``annotations_final.csv`` and the folders ``0`` to ``f``, here or in ``mp3``.
        variant: ``folders``, ``pons2019``, ``won2020`` or ``lee2017``.
        lists: Folder with the published lists of a variant other than ``folders``.
        top_tags: Number of tags. 50 is the usual list; any other number takes the most frequent tags over all clips of
            ``annotations_final.csv``, ties in alphabetical order.
    """

    name: ClassVar[str] = "magnatagatune"
    citation: ClassVar[str] = (
        "E. Law, K. West, M. Mandel, M. Bay, J. S. Downie: Evaluation of algorithms using games: "
        "the case of music tagging. ISMIR 2009"
    )
    license: ClassVar[str] = "CC BY-NC-SA 3.0"
    homepage: ClassVar[str] = (
        "https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset: annotations_final.csv and mp3.zip.001 to .003 "
        "(join them with cat, then unzip); a mirror is huggingface.co/datasets/confit/magnatagatune"
    )
    published: ClassVar[dict[str, int]] = {"tracks": 25863, "train": 18706, "valid": 1825, "test": 5329}
    annotations: ClassVar[tuple[str, ...]] = ("tags",)
    known_bad: ClassVar[dict[str, str]] = {
        "35644": "6/norine_braun-now_and_zen-08-gently-117-146.mp3 is missing or empty in every copy",
        "55753": "8/jacob_heringman-josquin_des_prez_lute_settings-19-gintzler__pater_noster-204-233.mp3 is empty",
        "57881": "9/american_baroque-dances_and_suites_of_rameau_and_couperin-25-le_petit_rien...-88-117.mp3 is empty",
    }

    root: Any = None
    variant: str = "folders"
    lists: str | None = None
    top_tags: int = 50

    def __post_init__(self) -> None:
        if self.variant != "folders" and self.variant not in LISTS:
            raise InputError(f"dataset.variant={self.variant!r} is unknown: one of folders, {', '.join(LISTS)}")
        if self.top_tags < 1:
            raise InputError(f"dataset.top_tags={self.top_tags} must be at least 1")

    @property
    def label(self) -> str:
        return f"mtt:{self.variant}" + (f"-top{self.top_tags}" if self.top_tags != 50 else "")

    def read_tracks(self) -> list[Track]:
        root = single_root(self.root, self.name)
        path = index_file(root, self.name, "annotations_final.csv")
        clips = _read_clips(path)
        top: tuple[str, ...] = TOP_50
        if self.top_tags != 50:
            counts = Counter(tag for clip in clips for tag in clip.tags)
            # Ties in alphabetical order, so that the list does not depend on the order of the clips.
            top = tuple(sorted(counts, key=lambda tag: (-counts[tag], tag))[: self.top_tags])
        audio = audio_folder(root, "mp3", ".")
        if self.variant != "folders":
            chosen = _listed_clips(clips, self.variant, self.lists)
            return [_track(clip, split, audio, top) for clip, split in chosen]
        for clip in clips:
            if clip.folder not in FOLDER_SPLITS:
                raise InputError(f"{path}: clip {clip.clip_id} is in folder {clip.folder!r}, not one of 0 to f")
        return [_track(clip, FOLDER_SPLITS[clip.folder], audio, top) for clip in clips]


@dataclass(frozen=True)
class _Clip:
    clip_id: str
    path: str
    tags: frozenset[str]

    @property
    def folder(self) -> str:
        return self.path.split("/")[0]


def _read_clips(path: Path) -> list[_Clip]:
    """All clips of ``annotations_final.csv``: one column a tag, 0 or 1."""
    clips = []
    for where, row in table_rows(path, ["clip_id", "mp3_path", *TOP_50], delimiter="\t"):
        clip_id, mp3 = row.pop("clip_id"), row.pop("mp3_path")
        if not clip_id.isdecimal() or not mp3:
            raise InputError(f"{where}: expected a clip_id and its mp3_path, found {clip_id!r} and {mp3!r}")
        clips.append(_Clip(clip_id, mp3, frozenset(tag for tag, value in row.items() if value == "1")))
    return clips


def _track(clip: _Clip, split: str, audio: Path, top: tuple[str, ...]) -> Track:
    # artist-album-number-title: clips of one source track are a group.
    source = CLIP_TIMES.sub("", Path(clip.path).stem)
    labels = {"tags": [tag for tag in top if tag in clip.tags], "artist": source.split("-")[0]}
    return Track(track_id=clip.clip_id, audio=audio / clip.path, split=split, group=source, labels=labels)


def _listed_clips(clips: list[_Clip], variant: str, lists: str | None) -> list[tuple[_Clip, str]]:
    """The clips in the published lists of a variant, with their split."""
    files, source = LISTS[variant]
    folder = Path(lists or "").expanduser()
    if lists is None or not all((folder / name).is_file() for name in files):
        missing = "" if lists is None else f", which {folder} does not hold all of"
        raise InputError(
            f"dataset.variant={variant} needs dataset.lists=FOLDER with {', '.join(files)}{missing} ({source})"
        )
    # The lists name a clip by its number or by its path.
    known = {key: clip for clip in clips for key in (clip.clip_id, clip.path.removesuffix(".mp3"))}
    chosen = [(key, split, name) for split, name in zip(SPLITS, files, strict=True) for key in _keys(folder / name)]
    seen: dict[str, str] = {}  # clip_id -> the list that has it
    for key, _, name in chosen:
        if key not in known:
            raise InputError(f"{folder / name}: clip {key!r} is not in annotations_final.csv")
        if known[key].clip_id in seen:
            raise InputError(f"{folder / name}: clip {key!r} is also in {seen[known[key].clip_id]}")
        seen[known[key].clip_id] = name
    return [(known[key], split) for key, split, _ in chosen]


def _keys(path: Path) -> list[str]:
    """Names of clips in a published list: ``clip_id`` (Pons), or ``folder/name`` without its extension."""
    if path.suffix == ".tsv":
        return [line.split("\t")[0] for line in read_text(path).split("\n") if line.strip()]
    if path.suffix == ".npy":
        try:  # an array of objects would be a pickle, which could run code
            entries = [str(entry) for entry in np.load(path, allow_pickle=False).astype(str)]
        except (ValueError, OSError, EOFError) as error:
            raise InputError(f"{path}: not an array of texts ({str(error).splitlines()[0]})") from None
    else:
        entries = _pickled_entries(path)
    # won2020: number<tab>folder/name.mp3
    return [entry.split("\t")[-1].rsplit(".", 1)[0] for entry in entries]


class _TextsOnly(pickle.Unpickler):
    """Unpickles lists of texts only: a pickle that names a class could run code."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise pickle.UnpicklingError(f"it holds a {module_name}.{global_name}")


def _pickled_entries(path: Path) -> list[str]:
    """Texts of a pickled list; Python 2 wrote those of lee2017."""
    try:
        entries = _TextsOnly(io.BytesIO(path.read_bytes()), encoding="latin-1").load()
    except (pickle.UnpicklingError, ValueError, EOFError, OSError, IndexError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not a pickled list of texts ({error})") from None
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise InputError(f"{path}: not a pickled list of texts")
    return entries
