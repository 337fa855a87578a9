"""Sweeps: ``-m key=a,b`` makes a job of every combination; Hydra's launchers run them (here, or by SLURM).

Every job is composed and checked before the first one starts. A job is a run like any other, with a folder of its own
in the sweep's, so the same sweep started again goes on: finished jobs are left alone, and jobs that a longer comma
list adds are numbered after those there are. ``sweep.json`` in the sweep's folder says what was planned.

A sweep's jobs are single processes, or go to SLURM: Lightning's launcher repeats the command line for every other
rank, ``-m`` included, so a local job of several processes would start the sweep again in each.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import re
import shlex
import shutil
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musictf.config import compose, conf_folder, register, run_class, typed
from musictf.errors import InputError
from musictf.results.sweep_plan import FINISHED, PLAN, Job, quoted, read_plan, state_of, write_plan
from musictf.run_folder import FinishedRun, open_run, read_status

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Hydra's own files and log lines would stand in the run folders before the runs do.
_OWN = ("hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none")
_CELL_KEYS = frozenset({"backbone", "model", "task", "dataset", "seed", "seeds"})


class FailedJobs(Exception):
    """Jobs of a sweep broke down; the others were run all the same."""


@dataclass
class Sweep:
    """A sweep that can be started: its jobs, each composed and found sound.

    Attributes:
        verb: ``pretrain``, ``probe`` or ``inspect``.
        folder: Where the jobs have their folders.
        jobs: All jobs of the command.
        runs: The composed run of each job.
        settings: Overrides of Hydra itself: ``hydra/launcher=slurm``, ``hydra.launcher.partition=gpu``.
    """

    verb: str
    folder: Path
    jobs: list[Job]
    runs: list[Any]
    settings: list[str]

    @property
    def is_slurm(self) -> bool:
        """Whether the jobs go to SLURM."""
        return any(o.startswith("hydra/launcher=") and "slurm" in o for o in self.settings)

    @property
    def open_jobs(self) -> list[Job]:
        """The jobs that are not finished, or shall start afresh."""
        pairs = zip(self.jobs, self.runs, strict=True)
        return [job for job, run in pairs if run.overwrite or state_of(_folder(job))[0] != FINISHED]


@dataclass(frozen=True)
class OneJob:
    """What a launcher calls for each job, in this process or on a node."""

    verb: str
    do: Callable[[Any], None]

    def __call__(self, config: DictConfig) -> None:
        from hydra.core.hydra_config import HydraConfig

        run = typed(config, self.verb, HydraConfig.get().runtime.choices)
        print(f"\njob {Path(run.output_dir).name}: {run.output_dir}", flush=True)
        try:
            self.do(run)
        except FinishedRun as done:
            print(done)
        except InputError:
            # Refused before it had a folder: the reason must stand where the others do.
            if not read_status(Path(run.output_dir)):
                with open_run(Path(run.output_dir), {}, verb=self.verb):
                    raise
            raise


def sweep(verb: str, arguments: Sequence[str], do: Callable[[Any], None]) -> None:
    """Run ``do`` once for every combination of the overrides' comma lists, or say what would be run.

    Raises:
        InputError: an override is wrong, or the jobs cannot be launched; nothing has started. Or a job was refused.
        FailedJobs: a job broke down.
    """
    dry = [argument.partition("=")[2] for argument in arguments if argument.partition("=")[0] == "dry_run"]
    if dry and dry[-1] not in {"true", "false"}:
        raise InputError(f"dry_run={dry[-1]}: true or false")
    plan = planned(verb, [argument for argument in arguments if argument.partition("=")[0] != "dry_run"])
    if dry and dry[-1] == "true":
        print(description(plan), end="")
        return
    if plan.is_slurm and shutil.which("srun") is None:
        raise InputError("hydra/launcher=slurm: there is no srun here; start it on the cluster, or look: dry_run=true")
    try:
        write_plan(plan.folder, verb, _with_earlier(plan))
    except OSError as error:
        raise InputError(f"output_dir: {plan.folder} cannot be written ({error.strerror})") from error
    jobs = plan.open_jobs
    print(f"sweep: {plan.folder}, {len(plan.jobs)} jobs, {len(plan.jobs) - len(jobs)} of them finished already")
    if jobs:
        _raise_failures(jobs, _launched(plan, jobs, do))
    print(f"\nsweep: {plan.folder} is finished\nnext:  musictf report {shlex.quote(str(plan.folder))}")


def planned(verb: str, arguments: Sequence[str]) -> Sweep:
    """Compose and check every job of a sweep.

    Raises:
        InputError: an override is wrong, or the folder holds another sweep.
    """
    register()
    settings = [argument for argument in arguments if argument.startswith(("hydra.", "hydra/"))]
    combinations, folder = _combinations(verb, [argument for argument in arguments if argument not in settings])
    numbers = _numbers(verb, combinations, folder)
    varied = _varied(combinations)
    jobs, runs = [], []
    for number, overrides in zip(numbers, combinations, strict=True):
        try:
            run = compose(verb, overrides)
            other = [override for override in overrides if _key(override) in varied - _CELL_KEYS]
            cell = _cell(verb, run) | {"other": " ".join(other)}
        except InputError as error:
            raise InputError(f"job {number} of the sweep: {error}") from None
        jobs.append(Job(number, tuple(overrides), str(folder / str(number)), cell))
        runs.append(run)
    plan = Sweep(verb, folder, jobs, runs, settings)
    _check_launcher(plan)
    launcher_config(plan)  # a misspelt setting is told now
    return plan


def description(plan: Sweep) -> str:
    """What a sweep would do: its jobs, and the script that SLURM would get."""
    lines = [f"{len(plan.jobs)} jobs of musictf {plan.verb} in {plan.folder}; nothing was started (dry_run=true)"]
    going = plan.open_jobs
    for job in plan.jobs:
        state = "" if job in going else "   (finished already)"
        lines += [f"{job.number:>4}  {shlex.join(job.overrides)}{state}", f"      -> {job.output_dir}"]
    if plan.is_slurm and going:
        lines += ["", f"script for sbatch ({len(going)} jobs):", sbatch_script(launcher_config(plan), len(going))]
    return "\n".join(lines) + "\n"


def sbatch_script(config: DictConfig, num_jobs: int) -> str:
    """The script that submitit would hand to sbatch, by submitit's own code; no cluster is needed."""
    from omegaconf import OmegaConf

    executors = importlib.import_module("submitit.slurm.slurm")
    generic = importlib.import_module("submitit.auto.auto").AutoExecutor._typed_parameters()
    given: dict[str, Any] = OmegaConf.to_container(config.hydra.launcher, resolve=True)  # type: ignore[assignment]
    folder = Path(given.pop("submitit_folder")).expanduser().absolute()
    # What begins with an underscore is Hydra's, not SLURM's.
    given = {k: v for k, v in given.items() if v is not None and k[0] != "_" and k != "max_num_timeout"}
    # Made without its constructor, which asks for srun.
    executor = executors.SlurmExecutor.__new__(executors.SlurmExecutor)
    executor.folder, executor.parameters, executor.python = folder, {}, shlex.quote(sys.executable)
    shared = executor._convert_parameters({name: value for name, value in given.items() if name in generic})
    own = {name: value for name, value in given.items() if name not in generic}
    executor._internal_update_parameters(**shared, **own)
    if num_jobs > 1:
        executor.parameters["map_count"] = num_jobs
    return str(executor._make_submission_file_text(executor._submitit_command_str, ""))


def _combinations(verb: str, overrides: Sequence[str]) -> tuple[list[list[str]], Path]:
    """The overrides of each job, without ``output_dir``, and the sweep's folder."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException, OverrideParseException

    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        (combinations,) = BasicSweeper.split_arguments([o for o in parsed if o.key_or_group != "output_dir"], None)
    except OverrideParseException as error:
        raise InputError(f"cannot read {error.override!r} as key=value (quote brackets and blanks)") from None
    except HydraException as error:
        raise InputError(" ".join(str(error).split())) from None
    given = [override for override in parsed if override.key_or_group == "output_dir"]
    if given and given[-1].is_sweep_override():
        raise InputError("output_dir: one folder for the whole sweep; each job gets a folder of its own in it")
    chosen = given[-1].value() if given else None
    folder = Path("runs", verb, time.strftime("sweep-%Y%m%d-%H%M%S")) if chosen is None else Path(str(chosen))
    return combinations, folder.expanduser()


def _numbers(verb: str, combinations: Sequence[Sequence[str]], folder: Path) -> list[int]:
    """The number of each job: the one it has in the folder's plan, or the next free one."""
    earlier = _earlier(folder)
    known = [job.overrides for job in earlier]
    # How a job runs may change between two starts of a sweep, unless that is what is swept.
    ignored = run_class(verb).MAY_CHANGE - {key.split(".")[0] for key in _varied(combinations) | _varied(known)}
    taken = {_identity(job.overrides, ignored): job.number for job in earlier}
    wanted = [_identity(overrides, ignored) for overrides in combinations]
    if len(set(wanted)) < len(wanted):
        raise InputError("the comma lists name the same job twice")
    if taken and not (taken.keys() <= set(wanted) or set(wanted) <= taken.keys()):
        changed = " ".join(sorted(set(wanted[0]) - set(next(iter(taken)))))
        raise InputError(
            f"{folder} holds a sweep of other jobs ({changed or 'fewer keys'}); give the same keys to go on, "
            "or another output_dir="
        )
    free = itertools.count(max(taken.values(), default=-1) + 1)
    return [taken[identity] if identity in taken else next(free) for identity in wanted]


def _earlier(folder: Path) -> list[Job]:
    """Jobs that a sweep in this folder planned before."""
    if (folder / "status.json").is_file():
        raise InputError(f"output_dir: {folder} holds a run, not a sweep; choose another folder")
    if not (folder / PLAN).is_file():
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise InputError(f"output_dir: {folder} is not empty and holds no sweep; choose another folder")
        return []
    jobs: list[Job] = read_plan(folder / PLAN)["jobs"]
    return jobs


def _with_earlier(plan: Sweep) -> list[Job]:
    """The jobs of this command, and those planned before that it does not name."""
    # The folder may be called from somewhere else now.
    earlier = [replace(job, output_dir=str(plan.folder / str(job.number))) for job in _earlier(plan.folder)]
    jobs = {job.number: job for job in [*earlier, *plan.jobs]}
    return [jobs[number] for number in sorted(jobs)]


def _cell(verb: str, run: Any) -> dict[str, str]:
    """The cell of the table that a run fills."""
    if verb == "probe":
        seeds = ",".join(map(str, run.seeds))
        return {"backbone": run.backbone, "task": run.task.display_name, "dataset": run.dataset.label, "seed": seeds}
    if verb == "inspect":
        return {"backbone": run.backbone, "task": verb, "dataset": run.dataset.label, "seed": ""}
    return {"backbone": run.choices["model"], "task": verb, "dataset": run.dataset.label, "seed": str(run.seed)}


def _check_launcher(plan: Sweep) -> None:
    """Say now what a launcher would stumble over later."""
    for job, run in zip(plan.jobs, plan.runs, strict=True):
        devices = run.trainer.devices
        if not plan.is_slurm and devices not in (1, "1"):
            raise InputError(
                f"job {job.number}: trainer.devices={devices} in a local sweep: sweep single-process jobs, "
                "or send them to SLURM (hydra/launcher=slurm)"
            )
        if plan.is_slurm and not (isinstance(devices, int) and devices > 0):
            raise InputError(f"job {job.number}: trainer.devices={devices}: SLURM needs a number of them")
    if plan.is_slurm and importlib.util.find_spec("submitit") is None:
        raise InputError("hydra/launcher=slurm needs the submitit plugin: pip install musictf[slurm]")
    asked = {(run.trainer.devices, run.trainer.num_nodes, run.trainer.accelerator == "cpu") for run in plan.runs}
    if plan.is_slurm and len(asked) > 1:
        raise InputError("the jobs ask SLURM for different devices or nodes: one sweep for each")


def _launched(plan: Sweep, jobs: Sequence[Job], do: Callable[[Any], None]) -> Sequence[Any]:
    """Hand jobs to the launcher and wait; what it answers for each."""
    import hydra
    from hydra._internal.callbacks import Callbacks
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.plugins import Plugins
    from hydra.types import HydraContext

    config = launcher_config(plan)
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3", job_name="musictf"):
        context = HydraContext(GlobalHydra.instance().config_loader(), Callbacks(config))
        task = OneJob(plan.verb, do)
        launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
        # The launcher counts from 0 whatever we leave out: the folder's name must not follow.
        lists = [[*job.arguments(), f"hydra.sweep.subdir={job.number}"] for job in jobs]
        try:
            answers: Sequence[Any] = launcher.launch(lists, 0)
        except RuntimeError as error:  # of submitit: a job that was killed, or could not be submitted
            print(error, file=sys.stderr)
            raise FailedJobs(f"not all jobs ended; musictf report {plan.folder} says which") from error
    return answers


def launcher_config(plan: Sweep) -> DictConfig:
    """Hydra's own configuration for these jobs."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    own = [*_OWN, f"hydra.sweep.dir={quoted(str(plan.folder))}"]
    given = {_key(setting) for setting in plan.settings}
    if plan.is_slurm and plan.runs[0].trainer.accelerator == "cpu" and "hydra.launcher.gpus_per_node" not in given:
        own.append("hydra.launcher.gpus_per_node=null")
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3", job_name="musictf"):
        try:
            overrides = [*own, *plan.settings, *plan.jobs[0].arguments()]
            return hydra.compose(plan.verb, overrides, return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            said = re.split(" To append| Config search path", " ".join(str(error).split()))[0]
            raise InputError(f"{' '.join(plan.settings)}: {said}") from None


def _raise_failures(jobs: Sequence[Job], answers: Sequence[Any]) -> None:
    """Raise what went wrong in any job, the traceback of a defect printed."""
    from hydra.core.utils import JobStatus

    failed = [
        (job, answer._return_value)
        for job, answer in zip(jobs, answers, strict=True)
        if answer.status == JobStatus.FAILED
    ]
    for _, error in failed:
        if not isinstance(error, InputError):
            traceback.print_exception(error)
    if failed:
        told = "; ".join(f"job {job.number}: {error}" for job, error in failed)
        kind = InputError if all(isinstance(error, InputError) for _, error in failed) else FailedJobs
        raise kind(f"{len(failed)} of {len(jobs)} jobs failed: {told}")


def _folder(job: Job) -> Path:
    return Path(job.output_dir).expanduser()


def _key(override: str) -> str:
    return override.partition("=")[0]


def _identity(overrides: Sequence[str], ignored: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(override for override in overrides if _key(override).split(".")[0] not in ignored))


def _varied(combinations: Sequence[Sequence[str]]) -> set[str]:
    """Keys whose value differs among jobs."""
    values: dict[str, set[str]] = defaultdict(set)
    for override in (override for overrides in combinations for override in overrides):
        values[_key(override)].add(override)
    return {key for key, found in values.items() if len(found) > 1}
