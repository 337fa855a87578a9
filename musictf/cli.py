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

from musictf.distributed import rank
from musictf.errors import InputError
from musictf.files import write_atomically
from musictf.help import OVERVIEW, verb_help
from musictf.run_folder import FinishedRun
from musictf.sweep import FailedJobs


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
    except FailedJobs as error:
        sys.exit(_complain(verb, str(error), 1))
    except Interruption as stop:
        sys.exit(_complain(verb, str(stop), 1))
    except KeyboardInterrupt:
        sys.exit(_complain(verb, "interrupted", 1))


class Interruption(KeyboardInterrupt):
    """A run stopped on request, with a way to go on. No launcher of a sweep may take it for a job that failed."""


def _verb(name: str) -> Callable[[list[str]], None]:
    verbs = {"demo": _demo, "pretrain": _pretrain, "probe": _probe, "inspect": _inspect}
    verbs |= {"report": _report, "data": _data}
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


def _inspect(arguments: list[str]) -> None:
    if _asks_help("inspect", arguments) or _sweeps("inspect", arguments, inspect):
        return
    from musictf.config import compose

    inspect(compose("inspect", arguments))


def _demo(arguments: list[str]) -> None:
    if _asks_help("demo", arguments):
        return
    _quieten()
    from musictf.demo import demo, demo_run

    demo(demo_run(arguments), pretrain, probe, inspect)


def _report(arguments: list[str]) -> None:
    from musictf.report.run import main as report

    report(arguments)


def _data(arguments: list[str]) -> None:
    if _asks_help("data", arguments):
        return
    # What `musictf data` does, by name.
    acts: dict[str, Callable[[list[str]], None]] = {
        "check": _data_check,
        "prepare": _data_prepare,
        "pack": _data_pack,
        "features": _data_features,
    }
    if not arguments or arguments[0] not in acts:
        near = difflib.get_close_matches(arguments[0], acts, n=1) if arguments else []
        hint = f"did you mean data {near[0]}?" if near else f"data {' or data '.join(acts)} (musictf data --help)"
        raise InputError(f"{'data ' + arguments[0] + ' is unknown: ' if arguments else ''}{hint}")
    acts[arguments[0]](arguments[1:])


def _data_check(arguments: list[str]) -> None:
    from musictf.config import compose
    from musictf.datasets.corpus_check import check

    own, keys = _set_apart(arguments, {"output"})
    if not any(key.partition("=")[0].split(".")[0] == "task" for key in keys):
        check(compose("pretrain", keys).dataset, output=own.get("output"))
        return
    run = compose("probe", ["backbone=mel", *keys])
    check(run.dataset, run.task, own.get("output"))


def _data_pack(arguments: list[str]) -> None:
    from musictf.config import compose
    from musictf.packing.pack import pack, pack_keys, summary, verify
    from musictf.results.sweep_plan import quoted

    own, keys = _set_apart(arguments, {"root", "verify", "output", *pack_keys()})
    if own.get("verify", "false") not in {"true", "false"}:
        raise InputError(f"verify={own['verify']}: true or false")
    if own.get("verify") == "true":
        if set(own) != {"root", "verify"} or keys:
            raise InputError("musictf data pack root=FOLDER verify=true takes no other keys")
        print(f"{own['root']}: {verify(own['root'])} recordings are what was packed")
        return
    if "root" in own or not own.get("output"):
        raise InputError("musictf data pack dataset=... dataset.root=ROOT output=FOLDER (or root=FOLDER verify=true)")
    output = own.pop("output")
    run = compose("pretrain", keys)
    folder = pack(run.dataset, output, **pack_keys(own, run.front_end.sample_rate))
    print(summary(folder))
    print(f"next: musictf pretrain dataset=packed dataset.root={quoted(str(folder))}")


def _data_features(arguments: list[str]) -> None:
    from musictf.features.inventory import features

    features(arguments)


def _data_prepare(arguments: list[str]) -> None:
    import musictf.tasks
    from musictf.config import compose, dataset_classes, subclasses
    from musictf.datasets.base import Dataset
    from musictf.datasets.prepare import describe, list_corpora, prepare
    from musictf.results.sweep_plan import quoted
    from musictf.tasks.base import Task

    known = {cls.name: cls for cls in dataset_classes() if issubclass(cls, Dataset)}
    tasks = [cls() for cls in subclasses(musictf.tasks, Task)]
    own, rest = _set_apart(arguments, {"full"})
    if not rest:
        list_corpora(known, tasks)
        return
    corpus, *rest = rest
    if corpus not in known:
        near = difflib.get_close_matches(corpus, known, n=1, cutoff=0.5)
        raise InputError(
            f"corpus {corpus!r} is unknown{f', did you mean {near[0]!r}?' if near else ''}: one of "
            f"{', '.join(sorted(known))}"
        )
    root = [f"dataset.root={quoted(str(Path(rest.pop(0)).expanduser()))}"] if rest and "=" not in rest[0] else []
    rest = [key if key.startswith("dataset.") else f"dataset.{key}" for key in rest]
    if own.get("full", "false") not in {"true", "false"}:
        raise InputError(f"full={own['full']}: true or false")
    describe(known[corpus])
    keys = [f"dataset={corpus}", *root, *rest]
    prepare(compose("pretrain", keys).dataset, keys, tasks, own.get("full") == "true")


def _set_apart(arguments: list[str], names: set[str]) -> tuple[dict[str, str], list[str]]:
    """Keys that are not of a run, with their values; and all other arguments."""
    own = [argument.partition("=") for argument in arguments if argument.partition("=")[0] in names]
    return {name: value for name, _, value in own}, [a for a in arguments if a.partition("=")[0] not in names]


def pretrain(run: Any) -> None:
    """Pretrain, mirrored in Weights & Biases, and say where everything is."""
    _quieten()
    if run.dry_run:
        _print_plan(run)
        return
    import dataclasses
    from contextlib import ExitStack

    from musictf.evaluation.online_evaluator import OnlineProbing
    from musictf.models.backbone import FILE_NAME
    from musictf.pretraining import run as pretraining
    from musictf.pretraining.callbacks import Interrupted
    from musictf.pretraining.guard import Diverged
    from musictf.report.pictures import pretraining_pictures
    from musictf.report.wandb_tracker import Tracker

    with ExitStack() as open_trackers:
        trackers: list[Tracker] = []

        def observe(folder: Path) -> tuple[Any, ...]:
            if rank() > 0:
                return ()
            tracker = Tracker.start("pretrain", folder, dataclasses.asdict(run), run.wandb)
            trackers.append(open_trackers.enter_context(tracker))
            return (tracker.log,)

        try:
            watching = [] if run.online_probe is None else [OnlineProbing(run.online_probe)]
            folder = pretraining.pretrain(run, observe, watching)
        except Interrupted as stop:
            raise Interruption(f"{stop}; the same command with the same output_dir goes on") from None
        except Diverged as error:  # on every rank alike: one says so
            sys.exit(_complain("pretrain", str(error), 1) if rank() == 0 else 1)
        pictures = [path for path in pretraining_pictures(folder) if path.suffix == ".png"] if rank() == 0 else []
        for tracker in trackers:
            for picture in pictures:
                tracker.log_image(picture.stem, picture)
            tracker.log_backbone(folder / FILE_NAME, {"max_steps": run.max_steps, "seed": run.seed})
    if rank() == 0:
        print(f"backbone: {folder / FILE_NAME}")
        print(f"metrics:  {folder / 'metrics.csv'}")
        print(f"pictures: {', '.join(map(str, pictures))}")
        own = "" if run.dataset.name == "synthetic" else " dataset=manifest dataset.root=FOLDER_WITH_CHORDS"
        print(f"next:     musictf probe backbone={folder} task=chord{own}")


def _print_plan(run: Any) -> None:
    """What a run would take, from some of its steps."""
    from rich.console import Console
    from rich.table import Table

    from musictf.evaluation.online_evaluator import OnlineEvaluator
    from musictf.models.backbone import Backbone
    from musictf.pretraining.plan import plan

    if run.online_probe is not None:  # refuses what a run would
        OnlineEvaluator(run.online_probe, Backbone(run.model, run.front_end))
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in plan(run).lines():
        table.add_row(name, value)
    Console(highlight=False, soft_wrap=True).print(table)
    print("nothing was written; the same command without dry_run=true starts the run")


def probe(run: Any) -> None:
    """Probe, mirrored in Weights & Biases, print the table, and say where everything is."""
    _quieten()
    import dataclasses

    from musictf.evaluation import run as evaluation
    from musictf.models.backbone import backbone_file
    from musictf.models.frame_controls import FRAME_CONTROL_CLASSES
    from musictf.report.pictures import all_probe_pictures
    from musictf.report.run import report
    from musictf.report.wandb_tracker import Tracker, flat_rows, resolve_mode

    resolve_mode(run.wandb.mode)  # a missing key is said before the work, not after
    pictures: list[Path] = []

    def finish(folder: Path) -> None:
        with Tracker.start("probe", folder, dataclasses.asdict(run), run.wandb) as tracker:
            if run.backbone not in {"random", *FRAME_CONTROL_CLASSES}:
                tracker.use_backbone(backbone_file(run.backbone))
            tracker.log_table("results", *flat_rows(folder))
            pictures.extend(all_probe_pictures(run.task, run.dataset, folder))
            for path in pictures:
                tracker.log_image(path.stem, path)

    try:
        folder = evaluation.probe(run, finish)
    except SystemExit:  # what Lightning makes of Ctrl-C
        raise Interruption("interrupted; the same command with the same output_dir goes on") from None
    if rank() > 0:
        return
    report([folder])
    print(f"rows:      {folder / 'results.jsonl'}\nper track: {folder / 'per_track.csv'}")
    print(f"estimates: {folder / 'estimates'}\npictures:  {', '.join(map(str, pictures))}")


def inspect(run: Any) -> None:
    """Inspect, mirrored in Weights & Biases, print what was found, and say where everything is."""
    _quieten()
    import dataclasses

    from musictf.inspection import run as analysis
    from musictf.models.backbone import backbone_file
    from musictf.report.inspection import inspection_pages, inspection_pictures, inspection_text
    from musictf.report.wandb_tracker import Tracker, flat_rows, resolve_mode

    resolve_mode(run.wandb.mode)  # a missing key is said before the work, not after
    pages: list[Path] = []

    def finish(folder: Path) -> None:
        with Tracker.start("inspect", folder, dataclasses.asdict(run), run.wandb) as tracker:
            if run.backbone != "random":
                tracker.use_backbone(backbone_file(run.backbone))
            tracker.log_table("results", *flat_rows(folder))
            for path in inspection_pictures(folder):
                tracker.log_image(path.stem, path)
            write_atomically(folder / "inspection.md", inspection_text(folder))
            probes = [Path(name).expanduser() for name in run.estimates]
            pages.extend(inspection_pages(folder, run.dataset.tracks("test")[: run.listen], probes))

    try:
        folder = analysis.inspect(run, finish)
    except KeyboardInterrupt:
        raise Interruption("interrupted; the same command with the same output_dir goes on") from None
    if rank() > 0:
        return
    print((folder / "inspection.md").read_text())
    print(f"tables:   {folder / 'inspection.md'}\nrows:     {folder / 'results.jsonl'}\npictures: {folder / 'figures'}")
    print(f"listen:   {', '.join(map(str, pages)) or 'listen=N makes pages of N test tracks'}")


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
