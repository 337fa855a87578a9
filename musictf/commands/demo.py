"""``musictf demo``: the complete workflow on synthetic music, with the same commands that a user would type.

It composes the runs that ``musictf pretrain experiment=demo``, ``musictf probe`` and ``musictf inspect`` would, so the
demo and the commands give the same results. Each part has its own run folder: an interrupted demo continues with the
unfinished part.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musictf.commands.help import RunHelp
from musictf.run_folder import FinishedRun, WandbConfig

if TYPE_CHECKING:
    from rich.console import Console

HELP = RunHelp(
    verb="demo",
    run_class=("musictf.commands.demo", "DemoRun"),
    usage="musictf demo [key=value ...]",
    text="""\
Makes a synthetic corpus, pretrains vit1d_mini on it, probes tagging, chords and beats on every layer and readout beside
random weights, the log-mel and the majority answer, inspects the backbone, and draws the results. The same command
continues a demo that was interrupted.
""",
    groups=(),
    examples="""\
  musictf demo
  musictf demo output_dir=/tmp/demo pretrain_tracks=40 num_tracks=40 max_steps=20
""",
)


@dataclass(kw_only=True)
class DemoRun:
    """Keys of ``musictf demo``; everything else is ``conf/experiment/demo.yaml``.

    The probed songs are the first of the pretraining songs. Their splits are the same, so test songs are not seen in
    pretraining.

    Attributes:
        output_dir: Folder for everything the demo makes.
        pretrain_tracks: Synthetic songs to pretrain on.
        num_tracks: How many of these songs are probed and inspected.
        seconds: Length of each song in seconds.
        max_steps: Optimisation steps of the pretraining.
        batch_size: Pairs in each step.
        seed: Seed of the songs and of the pretraining.
        seeds: Seeds of the probes; ``musictf probe`` takes three.
        tasks: Tasks to probe.
        overwrite: Replace a finished demo.
    """

    output_dir: str = "runs/demo"
    pretrain_tracks: int = 640
    num_tracks: int = 200
    seconds: float = 24.0
    max_steps: int = 160
    batch_size: int = 128
    seed: int = 0
    seeds: list[int] = field(default_factory=lambda: [0])
    tasks: list[str] = field(default_factory=lambda: ["tagging", "chord", "beat"])
    wandb: WandbConfig = field(default_factory=WandbConfig)
    overwrite: bool = False


def help_text(arguments: Sequence[str] = ()) -> str:
    """The help of the verb."""
    return HELP.render(arguments)


def main(arguments: Sequence[str]) -> None:
    """Run the command with the arguments that follow the verb."""
    from musictf.config import parsed

    demo(parsed(DemoRun, arguments, "demo"))


def demo(run: DemoRun) -> Path:
    """Pretrain, probe every task beside its baselines, inspect, draw.

    Returns:
        The folder with everything: ``pretrain/``, ``probe/<task>/``, ``inspect/``, ``figures/`` and ``report.html``.
    """
    from rich.console import Console

    from musictf.commands.inspect import run_inspection
    from musictf.commands.pretrain import run_pretraining
    from musictf.commands.probe import run_probe
    from musictf.config import compose, python_overrides
    from musictf.reporting.report import write_report
    from musictf.reporting.run_figures import probe_pictures, track_picture

    console, started = Console(highlight=False), time.perf_counter()
    folder = Path(run.output_dir).expanduser()
    backbone, figures = folder / "pretrain", folder / "figures"
    probes = {task: folder / "probe" / task for task in run.tasks}
    shared = {"wandb.mode": run.wandb.mode, "overwrite": run.overwrite, "dataset": "synthetic"}
    songs = {"dataset.seconds": run.seconds, "dataset.seed": run.seed, "dataset.reinstrument": True}
    steps = {"max_steps": run.max_steps, "batch_size": run.batch_size, "seed": run.seed, "output_dir": backbone}
    pretrained_on = {"experiment": "demo", "dataset.num_tracks": run.pretrain_tracks}
    frozen = {"backbone": backbone, "dataset.num_tracks": run.num_tracks, "seeds": run.seeds, **shared, **songs}
    # All of them composed before the first one starts: a wrong key is reported at once.
    pretraining = compose("pretrain", python_overrides({**shared, **songs, **pretrained_on, **steps}))
    studies = {
        task: compose("probe", python_overrides({**frozen, "task": task, "output_dir": path}))
        for task, path in probes.items()
    }

    parts = len(studies) + 2
    console.rule(f"1 of {parts} · pretrain on {run.pretrain_tracks} synthetic songs, each played in several ways")
    _unless_finished(run_pretraining, pretraining, console)
    for number, (task, study) in enumerate(studies.items(), start=2):
        console.rule(f"{number} of {parts} · probe: {task}")
        _unless_finished(run_probe, study, console)
        probe_pictures(probes[task], figures)
    console.rule(f"{parts} of {parts} · inspect")
    # Composed only here: it refuses estimates that do not exist yet.
    # Only these two tasks have estimates that a page can draw.
    estimates = [path for task, path in probes.items() if task in {"chord", "beat"}]
    inspection = python_overrides({**frozen, "output_dir": folder / "inspect", "estimates": estimates})
    _unless_finished(run_inspection, compose("inspect", inspection), console)
    console.rule("results")
    write_report([folder / "probe"])
    write_report([folder / "probe"], output=folder / "report.html")
    write_report([folder / "probe"], output=folder / "report.md")
    track = pretraining.dataset.tracks("test")[0]
    reference = (track.annotation("chords"), track.annotation("beats"))
    drawn = track_picture(list(probes.values()), track.track_id, track.audio, reference, figures / "track")
    console.print(
        f"Done in {(time.perf_counter() - started) / 60:.1f} minutes. Backbone: {backbone / 'backbone.safetensors'}\n"
        f"Tables: {folder / 'report.html'}   Pictures: {figures}/, {backbone / 'figures'}/ (start with {drawn[0]})\n"
        f"Attention and tokens: {folder / 'inspect' / 'figures'}/   Audio pages: {folder / 'inspect' / 'listen'}/\n"
        f"The same on your music: musictf pretrain dataset=folder dataset.root=DIR"
    )
    return folder


def _unless_finished(execute: Callable[[Any], Path], run: Any, console: Console) -> None:
    try:
        execute(run)
    except FinishedRun as finished:
        console.print(str(finished))
