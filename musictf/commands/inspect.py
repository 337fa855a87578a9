"""``musictf inspect`` and ``musictf.inspect``: one inspection, its tables, and its mirror in Weights & Biases."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musictf.commands.help import RunHelp
from musictf.commands.run_result import RunResult, quiet_libraries, run_from_command_line, run_from_python
from musictf.distributed import rank
from musictf.errors import Interruption
from musictf.files import write_atomically

if TYPE_CHECKING:
    from musictf.inspection.inspect_run import InspectRun

HELP = RunHelp(
    verb="inspect",
    run_class=("musictf.inspection.inspect_run", "InspectRun"),
    usage="musictf inspect backbone=PATH [-m] [key=value ...]",
    text="""\
Measures what a backbone has learnt, without a probe; controls can refute each result. Heads, layers and thresholds
are chosen on the validation split and scored on the test split; the training split is not read. Writes inspection.md
(the tables), results.jsonl, per_track.csv, figures/, tracks/ (curves and matrices with their times) and listen/ (pages
with sound) to output_dir. The same command with the same output_dir continues a run that was stopped.

parts:
  attention    attention curves of every head against onsets (librosa's where none are annotated), beats, downbeats and
               chord changes; controls: shifted and shuffled events, random weights, silence, noise, spectral flux
  similarity   self-similarity of layers against harmony, timbre, rhythm, loudness, bar, chords and sections; novelty
               against chord changes and sections
  position     what positions and plain input explain: music, noise, silence, clicks, a sustained chord, a scale
  maps         where roots, keys and beats lie among the tokens; whether there is a circle of fifths
""",
    groups=("dataset", "model", "trainer"),
    examples="""\
  musictf inspect backbone=runs/demo/pretrain
  musictf inspect backbone=runs/mine dataset=manifest dataset.root=corpora/a listen=3
  musictf inspect backbone=runs/mine 'estimates=[runs/chords,runs/beats]' listen=2
  musictf inspect backbone=runs/mine 'parts=[attention]' 'attention.targets=[beat,downbeat]'
  musictf inspect -m backbone=runs/a,runs/b output_dir=runs/both
""",
)


def help_text(arguments: Sequence[str] = ()) -> str:
    """The help of the verb; ``group=choice`` among the arguments shows the keys of that choice."""
    return HELP.render(arguments)


def main(arguments: Sequence[str]) -> None:
    """Run the command with the arguments that follow the verb."""
    run_from_command_line("inspect", arguments, run_inspection)


def inspect(*overrides: str, **keys: Any) -> RunResult:
    """Inspect a backbone on a corpus: the command ``musictf inspect`` from Python.

    Args:
        overrides: ``key=value`` each, as on the command line.
        keys: Python values by key. A mapping holds the keys of a section; ``**{"dataset.root": "my music"}`` names a
            key with a dot.

    Returns:
        The run folder and its result rows.

    Raises:
        InputError: A key or a value cannot be used; nothing was computed.
        Interruption: The run was stopped on request; the same call continues it.

    Example:
        >>> inspect(backbone="runs/demo/pretrain", parts=["attention"])  # doctest: +SKIP
    """
    return run_from_python("inspect", overrides, keys, run_inspection)


@quiet_libraries()
def run_inspection(run: InspectRun) -> Path:
    """Run one composed inspection, with its mirror, tables and pages, and print where the results are.

    Returns:
        The run folder.
    """
    from musictf.inspection import inspect_run as analysis
    from musictf.models.backbone_source import backbone_source
    from musictf.reporting.inspection import inspection_pages, inspection_pictures, inspection_text
    from musictf.reporting.wandb_tracker import Tracker, flat_rows, resolve_mode

    resolve_mode(run.wandb.mode)  # a missing key is reported before the work, not after
    pages: list[Path] = []

    # Called before the run counts as finished: a run whose mirror or pages fail can be continued.
    def finish(folder: Path) -> None:
        with Tracker.start("inspect", folder, dataclasses.asdict(run), run.wandb) as tracker:
            if (path := backbone_source(run.backbone).path) is not None:
                tracker.use_backbone(path)
            tracker.log_table("results", *flat_rows(folder))
            for figure in inspection_pictures(folder):
                tracker.log_image(figure.stem, figure)
            write_atomically(folder / "inspection.md", inspection_text(folder))
            probes = [Path(name).expanduser() for name in run.estimates]
            pages.extend(inspection_pages(folder, run.dataset.tracks("test")[: run.listen], probes))

    try:
        folder = analysis.inspect(run, finish)
    except KeyboardInterrupt:
        raise Interruption("interrupted; the same command with the same output_dir goes on") from None
    if rank() == 0:
        tables = folder / "inspection.md"
        print(tables.read_text())
        print(f"tables:   {tables}\nrows:     {folder / 'results.jsonl'}\npictures: {folder / 'figures'}")
        print(f"listen:   {', '.join(map(str, pages)) or 'listen=N makes pages of N test tracks'}")
    return folder
