"""``musictf pretrain`` and ``musictf.pretrain``: one pretraining run, mirrored in Weights & Biases."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musictf.commands.help import RunHelp
from musictf.commands.run_result import RunResult, quiet_libraries, run_from_command_line, run_from_python
from musictf.distributed import rank
from musictf.errors import FailedRun, Interruption

if TYPE_CHECKING:
    from musictf.pretraining.pretrain_run import PretrainRun
    from musictf.reporting.wandb_tracker import Tracker

HELP = RunHelp(
    verb="pretrain",
    run_class=("musictf.pretraining.pretrain_run", "PretrainRun"),
    usage="musictf pretrain [-m] [key=value ...]",
    text="""\
Contrastive pretraining: two excerpts of each track, NT-Xent on their class tokens, no loss on the sequence tokens.
Writes backbone.safetensors, metrics.csv and checkpoints/ to output_dir. Ctrl-C, SIGTERM and SIGUSR1 stop the run after
the current step (exit status 1). The same command with the same output_dir continues it, also after a kill.
""",
    groups=("dataset", "model", "front_end", "objective", "augment", "online_probe", "trainer", "experiment"),
    examples="""\
  musictf pretrain dataset=folder dataset.root=~/music max_steps=2000 output_dir=runs/mine
  musictf pretrain dataset=manifest dataset.root=[corpora/a,corpora/b] model=vit1d_tiny trainer=gpu
  musictf pretrain dataset=packed dataset.root=packs/mine batch_size=2048 micro_batch=64 dry_run=true
  musictf pretrain trainer=ddp trainer.accelerator=cpu trainer.devices=2 max_steps=20
  musictf pretrain -m seed=0,1,2 output_dir=runs/three dry_run=true
  musictf pretrain -m seed=0,1,2 output_dir=runs/three
  musictf pretrain -m model=vit1d_tiny,vit1d_small trainer=gpu hydra/launcher=slurm hydra.launcher.timeout_min=720
""",
)


def help_text(arguments: Sequence[str] = ()) -> str:
    """The help of the verb; ``group=choice`` among the arguments shows the keys of that choice."""
    return HELP.render(arguments)


def main(arguments: Sequence[str]) -> None:
    """Run the command with the arguments that follow the verb."""
    run_from_command_line("pretrain", arguments, run_pretraining)


def pretrain(*overrides: str, **keys: Any) -> RunResult:
    """Pretrain a backbone: the command ``musictf pretrain`` from Python.

    Args:
        overrides: ``key=value`` each, as on the command line.
        keys: Python values by key. A mapping holds the keys of a section; ``**{"dataset.root": "my music"}`` names a
            key with a dot.

    Returns:
        The run folder; ``.backbone`` is the path of the backbone file.

    Raises:
        InputError: A key or a value cannot be used; nothing was trained.
        FailedRun: The training diverged.
        Interruption: The run was stopped on request; the same call continues it.

    Example:
        >>> pretrain("dataset=folder", max_steps=2000, **{"dataset.root": "~/music"})  # doctest: +SKIP
    """
    return run_from_python("pretrain", overrides, keys, run_pretraining)


@quiet_libraries()
def run_pretraining(run: PretrainRun) -> Path:
    """Run one composed pretraining, with its mirror and figures, and print where the results are.

    Returns:
        The run folder; of a dry run, which writes nothing, the folder that the run would use.
    """
    from musictf.evaluation.online_evaluator import OnlineProbing
    from musictf.models.backbone import FILE_NAME
    from musictf.pretraining import pretrain_run as pretraining
    from musictf.pretraining.callbacks import Interrupted
    from musictf.pretraining.guard import Diverged
    from musictf.reporting.run_figures import pretraining_pictures
    from musictf.reporting.wandb_tracker import Tracker
    from musictf.run_folder import default_folder

    if run.dry_run:
        _print_plan(run)
        return Path(run.output_dir).expanduser() if run.output_dir else default_folder("pretrain")
    with ExitStack() as open_trackers:
        trackers: list[Tracker] = []

        # Called back once the folder is claimed: a refused run must not appear in Weights & Biases.
        def observe(folder: Path) -> tuple[Any, ...]:
            if rank() > 0:  # one process of a run writes its mirror
                return ()
            tracker = Tracker.start("pretrain", folder, dataclasses.asdict(run), run.wandb)
            trackers.append(open_trackers.enter_context(tracker))
            return (tracker.log,)

        callbacks = [] if run.online_probe is None else [OnlineProbing(run.online_probe)]
        try:
            folder = pretraining.pretrain(run, observe, callbacks)
        except Interrupted as stop:
            raise Interruption(f"{stop}; the same command with the same output_dir goes on") from None
        except Diverged as error:
            raise FailedRun(str(error)) from None
        figures = [path for path in pretraining_pictures(folder) if path.suffix == ".png"] if rank() == 0 else []
        # Inside the context of the mirror, which must be open for figures and artifact.
        for tracker in trackers:
            for figure in figures:
                tracker.log_image(figure.stem, figure)
            tracker.log_backbone(folder / FILE_NAME, {"max_steps": run.max_steps, "seed": run.seed})
    if rank() == 0:
        # Only the synthetic corpus is known to have chords.
        corpus = [] if run.dataset.name == "synthetic" else ["dataset=manifest", "dataset.root=FOLDER_WITH_CHORDS"]
        print(f"backbone: {folder / FILE_NAME}\nmetrics:  {folder / 'metrics.csv'}")
        print(f"pictures: {', '.join(map(str, figures))}")
        print(f"next:     {shlex.join(['musictf', 'probe', f'backbone={folder}', 'task=chord', *corpus])}")
    return folder


def _print_plan(run: PretrainRun) -> None:
    """Print the estimated time, memory and sizes of a run, measured on a few of its steps."""
    from rich.console import Console
    from rich.table import Table

    from musictf.evaluation.online_evaluator import OnlineEvaluator
    from musictf.models.backbone import Backbone
    from musictf.pretraining.cost_estimate import plan

    if run.online_probe is not None:  # built only for its checks, so that a dry run refuses what the run would refuse
        OnlineEvaluator(run.online_probe, Backbone(run.model, run.front_end))
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in plan(run).lines():
        table.add_row(name, value)
    Console(highlight=False, soft_wrap=True).print(table)
    print("nothing was written; the same command without dry_run=true starts the run")
