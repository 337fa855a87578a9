"""``musictf demo``: the whole loop on synthetic music, with the same commands a user would type.

It composes the runs that ``musictf pretrain experiment=demo`` and ``musictf probe`` would, so what the demo shows is
what the commands do. Each part has its own run folder: a demo that was interrupted goes on with the part it was in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from musictf.config import compose, parsed
from musictf.run_folder import FinishedRun, WandbConfig


@dataclass(kw_only=True)
class DemoRun:
    """Everything ``musictf demo`` can be told; the rest is ``conf/experiment/demo.yaml``.

    The first ``num_tracks`` of the ``pretrain_tracks`` songs are the corpus that is probed: the splits are the same,
    and what is tested on has not been pretrained on.
    """

    output_dir: str = "runs/demo"
    pretrain_tracks: int = 640
    num_tracks: int = 200
    seconds: float = 24.0
    max_steps: int = 160
    batch_size: int = 128
    seed: int = 0
    seeds: list[int] = field(default_factory=lambda: [0])  # of the probes; musictf probe takes three
    tasks: list[str] = field(default_factory=lambda: ["tagging", "chord", "beat"])
    wandb: WandbConfig = field(default_factory=WandbConfig)
    overwrite: bool = False


def demo_run(arguments: Sequence[str]) -> DemoRun:
    """The demo that ``key=value`` arguments describe."""
    run: DemoRun = parsed(DemoRun, arguments, "demo")
    return run


def demo(
    run: DemoRun, pretrain: Callable[[Any], None], probe: Callable[[Any], None], inspect: Callable[[Any], None]
) -> Path:
    """Pretrain, probe every task beside its baselines, inspect, draw.

    Args:
        run: What to do.
        pretrain: Does one pretraining run.
        probe: Does one probe run.
        inspect: Does one inspection.

    Returns:
        The folder with everything: ``pretrain/``, ``probe/<task>/``, ``inspect/``, ``figures/`` and ``report.html``.
    """
    from musictf.report.pictures import probe_pictures, track_picture
    from musictf.report.run import report

    console, started = Console(highlight=False), time.perf_counter()
    folder = Path(run.output_dir).expanduser()
    shared = [f"wandb.mode={run.wandb.mode}", f"overwrite={run.overwrite}"]
    songs = [f"dataset.seconds={run.seconds}", f"dataset.seed={run.seed}", "dataset.reinstrument=true"]
    pretrained_on, corpus = ([f"dataset.num_tracks={n}", *songs] for n in (run.pretrain_tracks, run.num_tracks))
    backbone, figures = folder / "pretrain", folder / "figures"
    runs = {
        "pretrain": compose(
            "pretrain",
            ["experiment=demo", *pretrained_on, *shared, f"output_dir='{backbone}'", f"max_steps={run.max_steps}"]
            + [f"batch_size={run.batch_size}", f"seed={run.seed}"],
        )
    }
    for task in run.tasks:
        keys = [f"backbone='{backbone}'", f"task={task}", "dataset=synthetic", *corpus]
        keys += [f"seeds={run.seeds}", *shared]
        runs[task] = compose("probe", [*keys, f"output_dir='{folder / 'probe' / task}'"])
    keys = [f"backbone='{backbone}'", "dataset=synthetic", *corpus, f"seeds={run.seeds}", *shared]
    estimated = ",".join(f"'{folder / 'probe' / task}'" for task in run.tasks if task in {"chord", "beat"})
    inspection = [*keys, f"output_dir='{folder / 'inspect'}'"]

    console.rule(
        f"1 of {len(runs) + 1} · pretrain on {run.pretrain_tracks} synthetic songs, each played in several ways"
    )
    _unless_finished(pretrain, runs["pretrain"], console)
    for number, task in enumerate(run.tasks, start=2):
        console.rule(f"{number} of {len(runs) + 1} · probe: {task}")
        _unless_finished(probe, runs[task], console)
        probe_pictures(folder / "probe" / task, figures)
    console.rule(f"{len(runs) + 1} of {len(runs) + 1} · inspect")
    # Composed here: the estimates are there only now.
    _unless_finished(inspect, compose("inspect", [*inspection, f"estimates=[{estimated}]"]), console)
    console.rule("results")
    report([folder / "probe"])
    report([folder / "probe"], output=folder / "report.html")
    report([folder / "probe"], output=folder / "report.md")
    track = runs["pretrain"].dataset.tracks("test")[0]
    reference = (track.annotation("chords"), track.annotation("beats"))
    probes = [folder / "probe" / task for task in run.tasks]
    drawn = track_picture(probes, track.track_id, track.audio, reference, figures / "track")
    console.print(
        f"Done in {(time.perf_counter() - started) / 60:.1f} minutes. Backbone: {backbone / 'backbone.safetensors'}\n"
        f"Tables: {folder / 'report.html'}   Pictures: {figures}/, {backbone / 'figures'}/ (start with {drawn[0]})\n"
        f"Inside the backbone: {folder / 'inspect' / 'figures'}/   Listen and look: {folder / 'inspect' / 'listen'}/\n"
        f"The same on your music: musictf pretrain dataset=folder dataset.root=DIR"
    )
    return folder


def _unless_finished(do: Callable[[Any], None], run: Any, console: Console) -> None:
    try:
        do(run)
    except FinishedRun as done:
        console.print(str(done))
