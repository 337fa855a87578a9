"""Leakage: which probed tracks a backbone was pretrained on, told by file, by sound, by recording and by name.

Levels, the strongest first: ``file`` (the same bytes), ``audio`` (the same samples), ``recording`` (the same sound at
another level, codec, sample rate or cut, by fingerprint): these three are hard. ``group`` is soft: another recording
of the same group or artist, whose names agree but for case.

Conventions: of a probed track its audio counts, of the pretraining corpus all recordings, versions included.
Pretraining on the training split of the probed corpus is no fault, so only the test split stops a run. A backbone that
carries no list of its corpus leaves the question open: that is ``unknown``, never "no leakage".
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
_INDEXED = 1000  # recordings compared at a time: half a gigabyte for 4 minutes each


@dataclass(frozen=True)
class Overlap:
    """The strongest thing that a probed track shares with the pretraining corpus.

    Attributes:
        track_id: The probed track.
        split: Its split.
        level: One of `LEVELS`.
        partner: The pretraining track it shares it with.
        score: Share of spectral peaks in common; 1 for ``file`` and ``audio``, None for ``group``.
    """

    track_id: str
    split: str
    level: str
    partner: str
    score: float | None


@dataclass(frozen=True)
class Leakage:
    """What probed tracks share with a pretraining corpus.

    Attributes:
        overlaps: One for each track that shares anything, in the order of the tracks.
        totals: Probed tracks by split.
        compared: The levels that could be compared; none where the backbone carries no list of its corpus.
        pretrained: Tracks the backbone was pretrained on; None where that is not known.
    """

    overlaps: list[Overlap]
    totals: dict[str, int]
    compared: tuple[str, ...] = LEVELS
    pretrained: int | None = None

    @property
    def is_known(self) -> bool:
        """Whether there was a list to compare with."""
        return bool(self.compared)

    @property
    def tracks(self) -> set[str]:
        """Tracks whose recording the backbone has heard, of all splits."""
        return {overlap.track_id for overlap in self.overlaps if overlap.level in HARD}

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Tracks by split and level."""
        found = [(overlap.split, overlap.level) for overlap in self.overlaps]
        return {split: {level: found.count((split, level)) for level in LEVELS} for split in self.totals}

    def hard(self, split: str) -> list[Overlap]:
        """Tracks of a split whose recording the backbone has heard."""
        return [overlap for overlap in self.overlaps if overlap.split == split and overlap.level in HARD]

    def summary(self) -> str:
        """One line for a person."""
        if not self.is_known:
            return "leakage: unknown: the backbone carries no list of its corpus"
        order = sorted(self.totals, key=lambda split: split != "test")
        parts = [f"{self.described(split)} of {self.totals[split]} {split} tracks" for split in order]
        lacking = [level for level in LEVELS if level not in self.compared]
        ending = f"; not compared: {', '.join(lacking)}" if lacking else ""
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
        """How many tracks of a split share what, in words."""
        counts = self.counts[split]
        hard = {level: counts[level] for level in HARD if counts[level]}
        soft = f" and {counts['group']} by name only" if counts["group"] else ""
        levels = f" ({', '.join(f'{level} {count}' for level, count in hard.items())})" if hard else ""
        return f"{sum(hard.values())}{levels}{soft}"


def check_leakage(
    pretrained: Identities | None, dataset_tracks: Mapping[str, Sequence[Track]], policy: str
) -> Leakage | None:
    """Compare the corpus of a probe with what the backbone was pretrained on, and say what was found.

    Args:
        pretrained: The list of its corpus that the backbone carries (`pretrained_identities`); None where it has none.
        dataset_tracks: The tracks to probe, by split.
        policy: ``fail``, ``warn`` or ``off``.

    Returns:
        What they share; None under ``off``.

    Raises:
        InputError: under ``fail``, test tracks were pretrained on, or nobody knows whether they were.
    """
    if policy not in POLICIES:
        raise InputError(f"leakage={policy!r} is unknown: one of {', '.join(POLICIES)}")
    if policy == "off":
        return None
    tracks = [entry for split in dataset_tracks.values() for entry in split]
    if pretrained is None:
        found = Leakage([], {name: len(split) for name, split in dataset_tracks.items()}, compared=())
    else:
        found = overlap(pretrained, identities(tracks, pretrained.level, versions=False))
    if policy == "fail":
        _refuse(found)
    Console(stderr=True, highlight=False, soft_wrap=True).print(found.summary(), markup=False)
    return found


def pretrained_identities(encoder: Encoder, path: Path) -> Identities | None:
    """The list of its corpus that a backbone carries; None where it has none, as older and foreign ones do.

    Raises:
        InputError: the list beside the backbone is not the one it was saved with.
    """
    note = getattr(encoder, "provenance", {}).get("identities")
    listed = path.with_name(FILE_NAME)
    if note is None or not listed.is_file():
        return None
    if file_digest(listed) != note["digest"]:
        raise InputError(f"{listed}: not the list this backbone was saved with; put that back, or remove this one")
    return read_identities(listed)


def overlap(pretrained: Identities, probed: Identities) -> Leakage:
    """For each probed track, the strongest thing it shares with the pretraining corpus."""
    found = _by_digest(pretrained, probed, "audio") | _by_digest(pretrained, probed, "file")
    compared = ["file", "group"]
    if "files" not in (pretrained.level, probed.level):
        compared += ["audio"]
        if pretrained.fingerprints == probed.fingerprints == VERSION:
            compared += ["recording"]
            rest = [identity for identity in probed.recordings if identity.track_id not in found]
            found = _by_fingerprint(pretrained, rest) | found
    found = _by_name(pretrained, probed) | found
    order = {identity.track_id: identity.split for identity in probed.recordings}
    return Leakage(
        [found[track_id] for track_id in order if track_id in found],
        {split: list(order.values()).count(split) for split in dict.fromkeys(order.values())},
        tuple(level for level in LEVELS if level in compared),
        len({identity.track_id for identity in pretrained.recordings}),
    )


def _by_digest(pretrained: Identities, probed: Identities, level: str) -> dict[str, Overlap]:
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
            place, score = next(iter(index.scores(identity.fingerprint)), (0, 0.0))
            before = best.get(identity.track_id)
            if score >= THRESHOLD and (before is None or score > (before.score or 0.0)):
                best[identity.track_id] = Overlap(
                    identity.track_id, identity.split, "recording", part[place].track_id, score
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


def _refuse(found: Leakage) -> None:
    if not found.is_known:
        raise InputError(
            "leakage=fail: unknown what the backbone was pretrained on: it carries no list of its corpus; pretrain it "
            "again with identities=full, or go on with leakage=warn"
        )
    if hard := found.hard("test"):
        named = ", ".join(entry.track_id for entry in hard[:3]) + (", ..." if len(hard) > 3 else "")
        raise InputError(
            f"leakage=fail: {found.described('test')} of {found.totals['test']} test tracks were pretrained on "
            f"({named}); pretrain without them (dataset.exclusions=FILE), or leakage=warn scores with and without them"
        )
