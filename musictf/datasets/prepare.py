"""``musictf data prepare``: compare a local copy of a published corpus with what its authors publish.

Nothing is downloaded: the command prints where to obtain a corpus, which layout is expected, what a copy lacks, and
which commands come next. Counts that differ from the published ones are reported but are no error: copies differ, and
so do partitions. Missing audio, audio that does not open, and annotations that do not parse are errors.
"""

from __future__ import annotations

import inspect
import shlex
import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from musictf.datasets.base import SPLITS, Dataset
from musictf.datasets.corpus_check import (
    cut_short,
    output_console,
    overview,
    print_bad,
    print_some,
    split_table,
    usable_line,
)
from musictf.datasets.track_checks import Finding, audit
from musictf.errors import InputError
from musictf.tasks.base import Task


def list_corpora(known: Mapping[str, type[Dataset]], tasks: Sequence[Task]) -> None:
    """Print a table of all corpora: number of tracks, tasks, licence, description."""
    table = Table(box=None, padding=(0, 2), header_style="bold")
    for name in ("corpus", "tracks", "tasks", "licence", "what it is"):
        table.add_column(name, justify="right" if name == "tracks" else "left", overflow="fold")
    for name, cls in sorted(known.items()):
        tracks = f"{cls.published['tracks']:,}" if "tracks" in cls.published else "–"
        served = ", ".join(task.display_name for task in tasks if task.annotation_name in _annotations(cls)) or "–"
        table.add_row(name, tracks, served, cls.license or "–", _module_text(cls).splitlines()[0])
    output_console().print(table)
    print("\nnext: musictf data prepare CORPUS ROOT   (without ROOT: where to obtain it, and the layout)")


def describe(cls: type[Dataset]) -> None:
    """Print citation, licence, source, published counts and known bad tracks of a corpus."""
    console = output_console()
    lines = [("cite", cls.citation), ("licence", cls.license), ("obtain", cls.homepage)]
    published = ", ".join(f"{name} {count:,}" for name, count in cls.published.items())
    for title, text in [*lines, ("published", published)]:
        if text:
            console.print(f"{title + ':':<11}{text}", markup=False)
    print_some(console, "known to be bad, always left out", [f"{k}: {v}" for k, v in cls.known_bad.items()])


def prepare(dataset: Dataset, keys: Sequence[str], tasks: Sequence[Task], full: bool) -> None:
    """Print how a copy compares with the published corpus, and the commands that come next.

    Args:
        dataset: The corpus, with the root of the copy.
        keys: ``key=value`` arguments that choose it, for the next commands.
        tasks: All tasks.
        full: Decode every file instead of reading its header.

    Raises:
        InputError: there is no copy, or some of its tracks cannot be used.
    """
    console = output_console()
    try:
        tracks = dataset.read_tracks()
    except InputError:
        # The docstring of the module states the layout.
        console.print(f"\nexpected layout:\n{_indented(_module_text(type(dataset)))}\n", markup=False)
        console.print(_indented(inspect.getdoc(type(dataset)) or ""), markup=False)
        raise
    all_findings = audit(tracks, whole=full)
    findings = [finding for finding in all_findings if finding.track.track_id not in dataset.known_bad]
    how = "decoded" if full else "headers read; full=true decodes"
    console.print(f"\n{dataset.label}: {overview(findings)} ({how})", markup=False)
    console.print(split_table(findings))
    _print_counts(dataset, all_findings, console)
    served = [task for task in tasks if any(task.annotation_name in finding.annotated for finding in findings)]
    for task in served:
        console.print(usable_line(findings, task), markup=False)
    print_some(console, "ends before the end that its header states", cut_short(findings))
    bad = print_bad(console, findings)
    # Not for corpora that no task can use.
    print_some(console, "no annotation", [f.track.track_id for f in findings if served and f.is_unannotated])
    _print_next(dataset, keys, served, console, bool(bad))
    if bad:
        raise InputError(f"{len(bad)} of {len(findings)} tracks of this copy cannot be used (listed above)")


def _print_counts(dataset: Dataset, findings: Sequence[Finding], console: Console) -> None:
    """Print counts beside the published ones; both with and without the known bad tracks a count may agree."""
    rows = []
    for name, published in dataset.published.items():
        counted = _counted(name, findings)
        if counted is None:
            continue
        known_bad = sum(finding.track.track_id in dataset.known_bad for finding in counted)
        with_audio = sum(finding.sound is not None for finding in counted)
        agrees = published in {len(counted), len(counted) - known_bad}
        remark = "" if agrees else "differs"
        rows.append((name, f"{published:,}", f"{len(counted):,}", f"{with_audio:,}", remark))
    if rows:
        table = Table(box=None, padding=(0, 2), header_style="bold")
        for column in ("", "published", "in the index", "with audio", ""):
            table.add_column(column, justify="left" if column == "" else "right")
        for row in rows:
            table.add_row(*row)
        console.print(table)


def _counted(name: str, findings: Sequence[Finding]) -> list[Finding] | None:
    """Tracks that a published count is about; None if it counts something else (GTZAN's ``all``, instruments)."""
    if name == "tracks":
        return list(findings)
    if name in SPLITS:
        return [finding for finding in findings if finding.track.split == name]
    if any(name in finding.track.labels for finding in findings):
        return [finding for finding in findings if name in finding.annotated]
    return None


def _print_next(dataset: Dataset, keys: Sequence[str], tasks: Sequence[Task], console: Console, bad: bool) -> None:
    """Print commands that use the corpus: probes for its tasks, or pretraining where it has no annotation."""
    exclusions = f"{dataset.name}-exclusions.txt"
    left_out = [f"dataset.exclusions={exclusions}"] if bad else []
    commands = [["data", "check", *keys, f"output={exclusions}"]]
    commands += [["probe", "backbone=mel", f"task={task.name}", *keys, *left_out] for task in tasks]
    if not tasks:
        commands.append(["pretrain", *keys, *left_out])
    console.print("\nnext (backbone=mel is the log-mel itself; put your backbone there):")
    for command in commands:
        # Quoted for the shell: a root may contain blanks.
        console.print(f"  musictf {shlex.join(command)}", markup=False)


def _annotations(cls: type[Dataset]) -> set[str]:
    """Annotations that a corpus declares, known without a copy of it."""
    return {*cls.published, *getattr(cls, "annotations", ())}


def _module_text(cls: type[Dataset]) -> str:
    return inspect.getdoc(sys.modules[cls.__module__]) or cls.__name__


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())
