"""Leakage: which probed tracks a backbone was pretrained on, by file, audio, recording and name.

Levels, the strongest first:
    ``file``: the same bytes.
    ``audio``: the same samples.
    ``recording``: the same recording at another level, codec, sample rate or cut, by fingerprint.
    ``group``: another recording of the same group or artist, whose names agree except for case.
The first three are hard: the recording was seen in pretraining. The last one is soft.

Conventions:
    Of a probed track its audio is compared, of the pretraining corpus all recordings, versions included.
    Pretraining on the training split of the probed corpus is allowed, so only the test split stops a run.
    A backbone without a list of its corpus gives the result ``unknown``, never "no leakage".
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from musictf.audio.fingerprint import THRESHOLD, VERSION, FingerprintIndex
from musictf.datasets.base import Track
from musictf.datasets.identity import FILE_NAME, Identities, Identity, identities, read_identities
from musictf.errors import InputError
from musictf.files import file_digest, write_atomically
from musictf.models.encoder import Encoder

POLICIES = ("fail", "warn", "off")
HARD = ("file", "audio", "recording")
LEVELS = (*HARD, "group")
COLUMNS = ("track_id", "split", "level", "partner", "score")
_INDEXED = 1000  # recordings compared at a time: half a gigabyte if each lasts 4 minutes


@dataclass(frozen=True)
class Overlap:
    """The strongest level at which a probed track agrees with a pretraining track.

    Attributes:
        track_id: The probed track.
        split: Its split.
        level: One of `LEVELS`.
        partner: The pretraining track.
        score: Share of spectral peaks in common; 1 for ``file`` and ``audio``, None for ``group``.
    """

    track_id: str
    split: str
    level: str
    partner: str
    score: float | None


@dataclass(frozen=True)
class Leakage:
    """Overlaps of probed tracks with a pretraining corpus.

    Attributes:
        overlaps: One for each track that agrees with a pretraining track at any level, in the order of the tracks.
        totals: Number of probed tracks by split.
        compared: The levels that could be compared; none if the backbone has no list of its corpus.
        pretrained: Number of tracks the backbone was pretrained on; None if unknown.
    """

    overlaps: list[Overlap]
    totals: dict[str, int]
    compared: tuple[str, ...] = LEVELS
    pretrained: int | None = None

    @property
    def is_known(self) -> bool:
        """Whether the backbone has a list of its corpus."""
        return bool(self.compared)

    @property
    def tracks(self) -> set[str]:
        """Tracks of all splits whose recording was seen in pretraining."""
        return {overlap.track_id for overlap in self.overlaps if overlap.level in HARD}

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Number of tracks by split and level."""
        pairs = [(overlap.split, overlap.level) for overlap in self.overlaps]
        return {split: {level: pairs.count((split, level)) for level in LEVELS} for split in self.totals}

    def hard(self, split: str) -> list[Overlap]:
        """Overlaps of a split whose recording was seen in pretraining."""
        return [overlap for overlap in self.overlaps if overlap.split == split and overlap.level in HARD]

    def summary(self) -> str:
        """One line for the terminal."""
        if not self.is_known:
            return "leakage: unknown: the backbone carries no list of its corpus"
        test_first = sorted(self.totals, key=lambda split: split != "test")
        parts = [f"{self.described(split)} of {self.totals[split]} {split} tracks" for split in test_first]
        missing = [level for level in LEVELS if level not in self.compared]
        ending = f"; not compared: {', '.join(missing)}" if missing else ""
        return f"leakage: {', '.join(parts)} were pretrained on ({self.pretrained} pretraining tracks){ending}"

    def to_json(self) -> dict[str, Any]:
        """Counts for a results row; the list itself is in ``leakage.csv``."""
        return {
            "known": self.is_known,
            "compared": list(self.compared),
            "pretrained": self.pretrained,
            "totals": self.totals,
            "counts": self.counts if self.is_known else None,
        }

    def write_csv(self, folder: Path) -> Path:
        """Write every overlap to ``leakage.csv``, one a line."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for overlap in self.overlaps:
            score = "" if overlap.score is None else f"{overlap.score:.3f}"
            writer.writerow(asdict(overlap) | {"score": score})
        write_atomically(folder / "leakage.csv", text.getvalue())
        return folder / "leakage.csv"

    def described(self, split: str) -> str:
        """Number of tracks of a split at each level, in words."""
        counts = self.counts[split]
        hard = {level: counts[level] for level in HARD if counts[level]}
        soft = f" and {counts['group']} by name only" if counts["group"] else ""
        levels = f" ({', '.join(f'{level} {count}' for level, count in hard.items())})" if hard else ""
        return f"{sum(hard.values())}{levels}{soft}"


def check_leakage(
    pretrained: Identities | None, dataset_tracks: Mapping[str, Sequence[Track]], policy: str
) -> Leakage | None:
    """Compare the corpus of a probe with what the backbone was pretrained on, and print a summary to the terminal.

    Args:
        pretrained: The list of its corpus that the backbone carries (`pretrained_identities`); None where it has none.
        dataset_tracks: The tracks to probe, by split.
        policy: ``fail``, ``warn`` or ``off``.

    Returns:
        The overlaps; None under ``off``.

    Raises:
        InputError: under ``fail``, test tracks were seen in pretraining, or it is unknown whether they were.
    """
    if policy not in POLICIES:
        raise InputError(f"leakage={policy!r} is unknown: one of {', '.join(POLICIES)}")
    if policy == "off":
        return None
    tracks = [entry for split in dataset_tracks.values() for entry in split]
    if pretrained is None:
        leakage = Leakage([], {name: len(split) for name, split in dataset_tracks.items()}, compared=())
    else:
        # A probe reads the audio of a track only, so its versions are not compared.
        leakage = overlap(pretrained, identities(tracks, pretrained.level, versions=False))
    if policy == "fail":
        _refuse(leakage)
    Console(stderr=True, highlight=False, soft_wrap=True).print(leakage.summary(), markup=False)
    return leakage


def pretrained_identities(encoder: Encoder, path: Path) -> Identities | None:
    """The list of the pretraining corpus beside a backbone; None if there is none, as for older and foreign backbones.

    Raises:
        InputError: the list beside the backbone is not the one it was saved with.
    """
    recorded = getattr(encoder, "provenance", {}).get("identities")
    list_path = path.with_name(FILE_NAME)
    if recorded is None or not list_path.is_file():
        return None
    if file_digest(list_path) != recorded["digest"]:
        raise InputError(
            f"{list_path}: not the list this backbone was saved with; restore the original file, or remove this one"
        )
    return read_identities(list_path)


def overlap(pretrained: Identities, probed: Identities) -> Leakage:
    """For each probed track, its overlap with the pretraining corpus at the strongest level."""
    # Each union keeps the right-hand side, which is the stronger level.
    overlaps = _by_digest(pretrained, probed, "audio") | _by_digest(pretrained, probed, "file")
    compared = ["file", "group"]
    if "files" not in (pretrained.level, probed.level):  # lists of level "files" have no digests of audio
        compared += ["audio"]
        if pretrained.fingerprints == probed.fingerprints == VERSION:
            compared += ["recording"]
            rest = [identity for identity in probed.recordings if identity.track_id not in overlaps]
            overlaps = _by_fingerprint(pretrained, rest) | overlaps
    overlaps = _by_name(pretrained, probed) | overlaps
    split_of = {identity.track_id: identity.split for identity in probed.recordings}
    return Leakage(
        [overlaps[track_id] for track_id in split_of if track_id in overlaps],
        {split: list(split_of.values()).count(split) for split in dict.fromkeys(split_of.values())},
        tuple(level for level in LEVELS if level in compared),
        len({identity.track_id for identity in pretrained.recordings}),
    )


def _by_digest(pretrained: Identities, probed: Identities, level: str) -> dict[str, Overlap]:
    # Reversed, so that of several pretraining tracks the first one is reported.
    known = {getattr(identity, level): identity.track_id for identity in reversed(pretrained.recordings)}
    pairs = [(identity, known.get(getattr(identity, level) or None)) for identity in probed.recordings]
    return {
        identity.track_id: Overlap(identity.track_id, identity.split, level, partner, 1.0)
        for identity, partner in pairs
        if partner is not None
    }


def _by_fingerprint(pretrained: Identities, probed: Sequence[Identity]) -> dict[str, Overlap]:
    best: dict[str, Overlap] = {}
    starts = range(0, len(pretrained.recordings) if probed else 0, _INDEXED)
    console = Console(stderr=True)
    for start in track(starts, "comparing recordings", console=console, transient=True, disable=len(starts) < 2):
        part = pretrained.recordings[start : start + _INDEXED]
        index = FingerprintIndex([identity.fingerprint for identity in part])
        for identity in probed:
            nearest, score = next(iter(index.scores(identity.fingerprint)), (0, 0.0))  # the best of this part
            previous = best.get(identity.track_id)
            if score >= THRESHOLD and (previous is None or score > (previous.score or 0.0)):
                best[identity.track_id] = Overlap(
                    identity.track_id, identity.split, "recording", part[nearest].track_id, score
                )
    return best


def _by_name(pretrained: Identities, probed: Identities) -> dict[str, Overlap]:
    known = {name: identity.track_id for identity in reversed(pretrained.recordings) for name in identity.names}
    return {
        identity.track_id: Overlap(identity.track_id, identity.split, "group", known[name], None)
        for identity in probed.recordings
        for name in identity.names
        if name in known
    }


def _refuse(leakage: Leakage) -> None:
    if not leakage.is_known:
        raise InputError(
            "leakage=fail: unknown what the backbone was pretrained on: it carries no list of its corpus; pretrain it "
            "again with identities=full, or continue with leakage=warn"
        )
    if hard := leakage.hard("test"):
        named = ", ".join(entry.track_id for entry in hard[:3]) + (", ..." if len(hard) > 3 else "")
        raise InputError(
            f"leakage=fail: {leakage.described('test')} of {leakage.totals['test']} test tracks were pretrained on "
            f"({named}); pretrain without them (dataset.exclusions=FILE), or leakage=warn scores with and without them"
        )
