"""``musictf probe`` and ``musictf.probe``: one study of a task, its table and its mirror in Weights & Biases."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musictf.commands.help import RunHelp
from musictf.commands.run_result import RunResult, quiet_libraries, run_from_command_line, run_from_python
from musictf.distributed import rank
from musictf.errors import Interruption

if TYPE_CHECKING:
    from musictf.evaluation.probe_run import ProbeRun

HELP = RunHelp(
    verb="probe",
    run_class=("musictf.evaluation.probe_run", "ProbeRun"),
    usage="musictf probe backbone=PATH [-m] [key=value ...]",
    text="""\
Linear probes of one task on frozen features: one affine head for every layer, readout, learning rate and seed, all
trained in one pass. Weights, learning rate, thresholds and layer are chosen on the validation split; the test split is
read once. Baselines and an upper bound are scored beside the backbone. Writes results.jsonl, per_track.csv, estimates/,
figures/ and heads/ to output_dir. The same command with the same output_dir continues a run that was stopped.
""",
    groups=("task", "dataset", "model", "trainer"),
    examples="""\
  musictf probe backbone=runs/demo/pretrain task=chord
  musictf probe backbone=runs/mine task=beat dataset=manifest dataset.root=corpora/a
  musictf probe backbone=runs/mine task=tagging 'layers=[0,4]' 'readouts=[sequence,average]' 'seeds=[0]'
  musictf probe backbone=runs/mine task=key dataset=giantsteps_key dataset.root=~/data/giantsteps
  musictf probe backbone=runs/mine task=chord 'robustness.perturbations=[noise,pitch]'
  musictf probe -m backbone=runs/mine,random task=tagging,chord,beat output_dir=runs/table dry_run=true
  musictf probe -m backbone=runs/mine,random task=tagging,chord,beat output_dir=runs/table
  musictf probe -m backbone=runs/a,runs/b 'seeds=[0,1],[2,3]' trainer=gpu hydra/launcher=slurm
""",
)


def help_text(arguments: Sequence[str] = ()) -> str:
    """The help of the verb; ``group=choice`` among the arguments shows the keys of that choice."""
    return HELP.render(arguments)


def main(arguments: Sequence[str]) -> None:
    """Run the command with the arguments that follow the verb."""
    run_from_command_line("probe", arguments, run_probe)


def probe(*overrides: str, **keys: Any) -> RunResult:
    """Probe a backbone on one task and corpus: the command ``musictf probe`` from Python.

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
        >>> probe(backbone="runs/demo/pretrain", task="chord", seeds=[0], probe={"steps": 100})  # doctest: +SKIP
    """
    return run_from_python("probe", overrides, keys, run_probe)


@quiet_libraries()
def run_probe(run: ProbeRun) -> Path:
    """Run one composed probe, with its mirror, figures and table, and print where the results are.

    Returns:
        The run folder.
    """
    from musictf.evaluation import probe_run as evaluation
    from musictf.models.backbone_source import backbone_source
    from musictf.reporting.report import write_report
    from musictf.reporting.run_figures import all_probe_pictures
    from musictf.reporting.wandb_tracker import Tracker, flat_rows, resolve_mode

    resolve_mode(run.wandb.mode)  # a missing key is reported before the work, not after
    figures: list[Path] = []

    # Called before the run counts as finished: a run whose mirror or figures fail can be continued.
    def finish(folder: Path) -> None:
        with Tracker.start("probe", folder, dataclasses.asdict(run), run.wandb) as tracker:
            # Controls have no file that could be an artifact.
            if (path := backbone_source(run.backbone).path) is not None:
                tracker.use_backbone(path)
            tracker.log_table("results", *flat_rows(folder))
            figures.extend(all_probe_pictures(run.task, run.dataset, folder))
            for figure in figures:
                tracker.log_image(figure.stem, figure)

    try:
        folder = evaluation.probe(run, finish)
    except SystemExit:  # Lightning turns Ctrl-C into it
        raise Interruption("interrupted; the same command with the same output_dir goes on") from None
    if rank() == 0:
        write_report([folder])
        print(f"rows:      {folder / 'results.jsonl'}\nper track: {folder / 'per_track.csv'}")
        print(f"estimates: {folder / 'estimates'}\npictures:  {', '.join(map(str, figures))}")
    return folder
