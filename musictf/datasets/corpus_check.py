"""``musictf data check``: decode every file of a corpus and read every annotation, before a long run needs them.

A track is *bad* if its audio is missing or does not decode to its end, or if an annotation does not parse: it cannot be
used, and is listed for exclusion with the reason. What may be intended is reported only: duplicate recordings, groups
in several splits, near silence, very short files, tracks without annotation.

Conventions: levels are RMS in decibels of full scale.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from musictf.datasets.base import SPLITS, Dataset, Track, read_exclusions
from musictf.datasets.splits import groups_across_splits
from musictf.datasets.track_checks import Finding, audit, is_annotation
from musictf.errors import InputError
from musictf.files import file_digest, write_atomically
from musictf.tasks.base import Task

NEAR_SILENCE_DB = -60.0
VERY_SHORT_SECONDS = 1.0
MAX_LINES = 20  # of one kind on the terminal; the exclusion list is complete


def check(dataset: Dataset, task: Task | None = None, output: str | None = None) -> None:
    """Print counts of a corpus and everything that is wrong with it.

    Args:
        dataset: The corpus.
        task: Also print how many tracks of each split this task can use.
        output: File for the bad tracks, which ``dataset.exclusions`` reads; without it bad tracks are an error.

    Raises:
        InputError: a track is bad and no `output` was given, or `output` cannot be written.
    """
    # Before the check, which may take hours.
    if output is not None and Path(output).expanduser().is_dir():
        raise InputError(f"output={output} is a folder; name a file")
    findings = audit(dataset.all_tracks())
    console = output_console()
    console.print(f"{dataset.label}: {overview(findings)}", markup=False)
    console.print(split_table(findings))
    for line in [*_annotation_lines(findings), *([usable_line(findings, task)] if task else [])]:
        console.print(line, markup=False)
    for title, lines in remarks(findings).items():
        print_some(console, title, lines)
    bad = print_bad(console, findings)
    if output is not None:
        count = write_exclusions(Path(output).expanduser(), dataset.exclusions, bad)
        console.print(f"wrote {output} ({count} tracks); leave them out with dataset.exclusions={output}", markup=False)
    elif bad:
        raise InputError(
            f"{len(bad)} of {len(findings)} tracks cannot be used (listed above); repair them, or leave them out: "
            "output=FILE writes the list that dataset.exclusions=FILE reads"
        )


def overview(findings: Sequence[Finding]) -> str:
    """Number of tracks, hours, durations and audio formats."""
    sounds = [finding.sound for finding in findings if finding.sound]
    if not sounds:
        return f"{len(findings)} tracks, no audio that decodes"
    layouts = {1: "mono", 2: "stereo"}
    formats = Counter(
        f"{sound.sample_rate} Hz, {layouts.get(sound.channels, f'{sound.channels} channels')}" for sound in sounds
    )
    seconds = [sound.seconds for sound in sounds]
    lengths = f"{min(seconds):.1f} to {max(seconds):.1f} s, median {statistics.median(seconds):.1f} s"
    common = "; ".join(f"{name}: {count}" for name, count in formats.most_common(5))
    rest = f"; {len(formats) - 5} other formats" if len(formats) > 5 else ""
    return f"{len(findings)} tracks, {sum(seconds) / 3600:.2f} hours\n  {lengths}\n  {common}{rest}"


def split_table(findings: Sequence[Finding]) -> Table:
    """A table of tracks, hours and faults, one row a split."""
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for name in ("split", "tracks", "hours", "audio missing", "bad otherwise", "no annotation"):
        table.add_column(name, justify="left" if name == "split" else "right")
    for name in SPLITS:
        part = [finding for finding in findings if finding.track.split == name]
        hours = sum(finding.sound.seconds for finding in part if finding.sound) / 3600
        missing = sum(finding.is_missing for finding in part)
        otherwise = sum(bool(finding.faults) for finding in part) - missing
        unannotated = sum(finding.is_unannotated for finding in part)
        table.add_row(name, str(len(part)), f"{hours:.2f}", str(missing), str(otherwise), str(unannotated))
    return table


def usable_line(findings: Sequence[Finding], task: Task) -> str:
    """A line with the number of tracks of each split that a task can use."""
    usable = [finding for finding in findings if not finding.faults and task.annotation_name in finding.annotated]
    return f"task={task.display_name} (needs {task.annotation_name}) can use: {_by_split(usable, findings)}"


def remarks(findings: Sequence[Finding]) -> dict[str, list[str]]:
    """Properties that may be mistakes or intended, by kind, each with a line a track or group."""
    tracks = [finding.track for finding in findings]
    groups = Counter((track.group, track.split) for track in tracks)
    split_groups, split_artists = groups_across_splits(tracks), groups_across_splits(tracks, "artist")
    sounds = [(finding.track.track_id, finding.sound) for finding in findings if finding.sound]
    unannotated = [finding.track.track_id for finding in findings if finding.is_unannotated]
    return {
        "ends before the end that its header states": cut_short(findings),
        "same audio": _duplicates(findings),
        "group in several splits": [
            f"{name}: {', '.join(f'{split} {groups[name, split]}' for split in splits)}"
            for name, splits in split_groups.items()
        ],
        # Where the group is the artist, once is enough.
        "artist in several splits": [
            f"{name}: {', '.join(splits)}" for name, splits in split_artists.items() if name not in split_groups
        ],
        "near silence": [
            f"{name}: {sound.level:.0f} dB" for name, sound in sounds if sound.digest and sound.level < NEAR_SILENCE_DB
        ],
        "very short": [
            f"{name}: {sound.seconds:.2f} s" for name, sound in sounds if sound.seconds < VERY_SHORT_SECONDS
        ],
        # A corpus without any annotation is meant for pretraining.
        "no annotation": unannotated if len(unannotated) < len(findings) else [],
    }


def cut_short(findings: Sequence[Finding]) -> list[str]:
    """Tracks whose file ends before its header states, with the end in seconds; they can still be used."""
    sounds = [(finding.track.track_id, finding.sound) for finding in findings if finding.sound]
    return [f"{name}: after {sound.seconds:.1f} s" for name, sound in sounds if sound.is_cut]


def write_exclusions(path: Path, earlier: str | None, bad: Iterable[Finding]) -> int:
    """Write an exclusion list.

    Args:
        path: The file.
        earlier: The exclusion list in use, whose tracks are kept.
        bad: More tracks to leave out.

    Returns:
        Number of tracks in the list.

    Raises:
        InputError: the file cannot be written, or a track_id contains characters that the format cannot hold.
    """
    reasons = read_exclusions(earlier) | {
        finding.track.track_id: " ".join("; ".join(finding.faults).split()) for finding in bad
    }
    head = "# track_id<tab>reason; written by musictf data check, read by dataset.exclusions=\n"
    try:
        write_atomically(path, head + "".join(f"{name}\t{reason}\n" for name, reason in reasons.items()))
    except OSError as error:
        raise InputError(f"output={path}: cannot be written ({error.strerror})") from error
    # A track_id with a tab or a line break would name another track.
    if lost := reasons.keys() - read_exclusions(str(path)).keys():
        raise InputError(f"{path}: track_id {min(lost)!r} cannot be written to an exclusion list; rename the track")
    return len(reasons)


def output_console() -> Console:
    """The console for reports: 200 columns wide where the output is not a terminal, so that lines are not broken."""
    console = Console(highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(highlight=False, soft_wrap=True, width=200)


def print_some(console: Console, title: str, lines: Sequence[str]) -> None:
    """Print lines of one kind: the first of them, and the number of all."""
    if lines:
        console.print(Text(f"{title} ({len(lines)}):", style="bold"))
    for line in lines[:MAX_LINES]:
        console.print(f"  {line}", markup=False)
    if len(lines) > MAX_LINES:
        console.print(f"  ... and {len(lines) - MAX_LINES} more")


def print_bad(console: Console, findings: Sequence[Finding]) -> list[Finding]:
    """Print the tracks that cannot be used, with the reasons, and return them."""
    bad = [finding for finding in findings if finding.faults]
    for title, is_missing in (("audio missing", True), ("bad otherwise", False)):
        part = [finding for finding in bad if finding.is_missing == is_missing]
        print_some(console, title, [f"{finding.track.track_id}: {'; '.join(finding.faults)}" for finding in part])
    return bad


def _duplicates(findings: Sequence[Finding]) -> list[str]:
    """Lines about tracks with the same recording: whether the file is the same, and the splits differ."""
    by_digest: dict[str, list[Track]] = defaultdict(list)
    for finding in findings:
        if finding.sound and finding.sound.digest:  # decoded, not only its header read
            by_digest[finding.sound.digest].append(finding.track)
    lines = []
    for tracks in (tracks for tracks in by_digest.values() if len(tracks) > 1):
        # Only duplicates are read once more.
        kind = "same file" if len({file_digest(track.audio) for track in tracks}) == 1 else "other container"
        splits = ", in several splits" if len({track.split for track in tracks}) > 1 else ""
        lines.append(f"{' = '.join(f'{track.track_id} ({track.split})' for track in tracks)}: {kind}{splits}")
    return lines


def _annotation_lines(findings: Sequence[Finding]) -> list[str]:
    """Number of tracks of each split with each annotation, one line an annotation."""
    labels = [(name, value) for finding in findings for name, value in finding.track.labels.items()]
    names = {name for name, value in labels if is_annotation(name, value)}
    lines = [f"  {name}: {_by_split([f for f in findings if name in f.annotated], findings)}" for name in sorted(names)]
    others = sorted({name for name, _ in labels} - names)
    return [*lines, *([f"  other fields: {', '.join(others)}"] if others else [])]


def _by_split(selected: Sequence[Finding], findings: Sequence[Finding]) -> str:
    part, total = (Counter(finding.track.split for finding in group) for group in (selected, findings))
    return ", ".join(f"{name} {part[name]} of {total[name]}" for name in SPLITS if total[name])
