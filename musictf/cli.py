"""``musictf VERB [key=value ...]``.

Exit status: 0 done; 2 the input is wrong (one line says what, where and what to do); 1 the run failed. ``sys.argv`` is
left as it came: Lightning starts the other ranks of a run with it.
"""

from __future__ import annotations

import difflib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from musictf.errors import InputError
from musictf.help import OVERVIEW, verb_help
from musictf.runs import FinishedRun, rank


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the ``musictf`` command."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        print(OVERVIEW, end="")
        return
    if arguments[0] == "--version":
        from musictf import __version__

        print(__version__)
        return
    verb, rest = arguments[0], arguments[1:]
    try:
        _verb(verb)(rest)
    except InputError as error:
        sys.exit(_complain(verb, str(error), 2))
    except FinishedRun as done:
        print(done)
    except KeyboardInterrupt:
        sys.exit(_complain(verb, "interrupted", 1))
    except Interruption as stop:
        sys.exit(_complain(verb, str(stop), 1))


class Interruption(Exception):
    """A run stopped on request, with a way to go on."""


def _verb(name: str) -> Callable[[list[str]], None]:
    verbs = {"demo": _demo, "pretrain": _pretrain, "probe": _probe, "report": _report, "data": _data}
    if name not in verbs:
        near = difflib.get_close_matches(name, verbs, n=1)
        hint = f", did you mean {near[0]!r}?" if near else f": one of {', '.join(verbs)}"
        raise InputError(f"unknown verb {name!r}{hint}")
    return verbs[name]


def _complain(verb: str, text: str, status: int) -> int:
    """One line on stderr, whatever the message was made of."""
    print(f"musictf {verb}: {' '.join(text.split())}", file=sys.stderr)
    return status


def _asks_help(verb: str, arguments: Sequence[str]) -> bool:
    if not {"-h", "--help"} & set(arguments):
        return False
    print(verb_help(verb), end="")
    return True


def _pretrain(arguments: list[str]) -> None:
    if _asks_help("pretrain", arguments) or _sweeps("pretrain", arguments, pretrain):
        return
    from musictf.config import compose

    pretrain(compose("pretrain", arguments))


def _probe(arguments: list[str]) -> None:
    if _asks_help("probe", arguments) or _sweeps("probe", arguments, probe):
        return
    from musictf.config import compose

    probe(compose("probe", arguments))


def _demo(arguments: list[str]) -> None:
    if _asks_help("demo", arguments):
        return
    _quieten()
    from musictf.demo import demo, demo_run

    demo(demo_run(arguments), pretrain, probe)


def _report(arguments: list[str]) -> None:
    from musictf.report.run import main as report

    report(arguments)


def _data(arguments: list[str]) -> None:
    if _asks_help("data", arguments):
        return
    if not arguments or arguments[0] != "check":
        raise InputError("data check [dataset=...] is what there is; see musictf data --help")
    from musictf.config import compose
    from musictf.datasets.check import check

    check(compose("pretrain", arguments[1:]).dataset)


def pretrain(run: Any) -> None:
    """Pretrain, mirrored in Weights & Biases, and say where everything is."""
    _quieten()
    import dataclasses
    from contextlib import ExitStack

    from musictf.models.backbone import FILE_NAME
    from musictf.pretraining import run as pretraining
    from musictf.pretraining.callbacks import Interrupted
    from musictf.report.pictures import pretraining_pictures
    from musictf.report.tracking import Tracker

    with ExitStack() as open_trackers:
        trackers: list[Tracker] = []

        def observe(folder: Path) -> tuple[Any, ...]:
            if rank() > 0:
                return ()
            tracker = Tracker.start("pretrain", folder, dataclasses.asdict(run), run.wandb)
            trackers.append(open_trackers.enter_context(tracker))
            return (tracker.log,)

        try:
            folder = pretraining.pretrain(run, observe)
        except Interrupted as stop:
            raise Interruption(f"{stop}; the same command with the same output_dir goes on") from None
        pictures = pretraining_pictures(folder) if rank() == 0 else []
        for tracker in trackers:
            tracker.log_image("training", pictures[0])
            tracker.log_backbone(folder / FILE_NAME, {"max_steps": run.max_steps, "seed": run.seed})
    if rank() == 0:
        print(f"backbone: {folder / FILE_NAME}\nmetrics:  {folder / 'metrics.csv'}\npicture:  {pictures[0]}")
        print(f"next:     musictf probe backbone={folder} task=chord")


def probe(run: Any) -> None:
    """Probe, mirrored in Weights & Biases, print the table, and say where everything is."""
    _quieten()
    import dataclasses

    from musictf.evaluation import run as evaluation
    from musictf.models.backbone import backbone_file
    from musictf.report.run import report
    from musictf.report.tracking import Tracker, resolve_mode

    resolve_mode(run.wandb.mode)  # a missing key is said before the work, not after
    pictures: list[Path] = []

    def finish(folder: Path) -> None:
        with Tracker.start("probe", folder, dataclasses.asdict(run), run.wandb) as tracker:
            if run.backbone not in {"random", "mel"}:
                tracker.use_backbone(backbone_file(run.backbone))
            tracker.log_table("results", *_flat_rows(folder))
            pictures.extend(_probe_pictures(run, folder))
            for path in pictures:
                tracker.log_image(path.stem, path)

    try:
        folder = evaluation.probe(run, finish)
    except SystemExit:  # what Lightning makes of Ctrl-C
        raise Interruption("interrupted; the same command with the same output_dir goes on") from None
    report([folder])
    print(f"rows:      {folder / 'results.jsonl'}\nper track: {folder / 'per_track.csv'}")
    print(f"estimates: {folder / 'estimates'}\npictures:  {', '.join(map(str, pictures))}")


def _probe_pictures(run: Any, folder: Path) -> list[Path]:
    """The layer map, and for tasks with times the first test track with what was made of it."""
    from musictf.report.pictures import probe_pictures, track_picture

    pictures = probe_pictures(folder)
    if run.task.wants not in {"chords", "beats"}:
        return [path for path in pictures if path.suffix == ".png"]
    track = next(t for t in run.dataset.tracks("test") if t.annotation(run.task.wants) is not None)
    own = track.annotation(run.task.wants)
    reference = (own, None) if run.task.wants == "chords" else (None, own)
    pictures += track_picture([folder], track.track_id, track.audio, reference, folder / "figures" / "track")
    return [path for path in pictures if path.suffix == ".png"]


def _flat_rows(folder: Path) -> tuple[list[str], list[list[Any]]]:
    """The selected rows as a table: one line a score."""
    from musictf.evaluation.rows import RESULTS, read_rows

    columns = ["task", "dataset", "system", "readout", "layer", "seed", "decoder", "score", "mean", "low", "high"]
    lines = [
        [row["task"], row["dataset"], row["backbone"]["kind"], row["readout"], row["layer"], row["seed"]]
        + [row["decoder"]["name"], name, value["mean"], *value["ci95"]]
        for row in read_rows(folder / RESULTS)
        if row["selected"]
        for name, value in row["scores"].items()
    ]
    return columns, lines


def _sweeps(verb: str, arguments: list[str], job: Callable[[Any], None]) -> bool:
    """Run a sweep where ``-m`` asks for one, through Hydra's own sweeper and launcher."""
    if not {"-m", "--multirun"} & set(arguments):
        return False
    if rank() > 0:
        raise InputError("-m inside a run of several processes: sweep single-process jobs, or launch each by SLURM")
    from musictf.sweep import sweep

    sweep(verb, [argument for argument in arguments if argument not in {"-m", "--multirun"}], job)
    return True


def _quieten() -> None:
    """Keep advice of libraries about themselves out of people's terminals."""
    import logging

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    for message in (".*does not have many workers.*", ".*LeafSpec.*", ".*isinstance.treespec.*", ".*pynvml.*"):
        warnings.filterwarnings("ignore", message=message)
    os.environ.setdefault("WANDB_SILENT", "true")


if __name__ == "__main__":
    main()
