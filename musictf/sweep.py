"""Sweeps: ``-m key=a,b`` makes a job of every combination; Hydra's launchers run them, here or by SLURM.

Every job is composed and checked before the first one starts. A job is a run like any other, in a folder of its own
below the sweep's. The same sweep started again continues: finished jobs are left alone, and jobs that a longer comma
list adds get the next numbers. ``sweep.json`` in the sweep's folder lists what was planned.

A sweep's jobs are single processes, or go to SLURM: Lightning's launcher repeats the command line for every other
rank, ``-m`` included, so a local job of several processes would start the sweep again in each.
"""

from __future__ import annotations

import importlib.util
import io
import itertools
import re
import shlex
import shutil
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musictf.config import compose, conf_folder, literal_paths, register, run_class, typed
from musictf.errors import FailedRun, InputError
from musictf.results.sweep_plan import FINISHED, PLAN, Job, quoted, read_plan, state_of, write_plan
from musictf.run_folder import FinishedRun, open_run, read_status

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Hydra would put files and log lines of its own into the run folders before the runs exist.
_NO_HYDRA_FILES = ("hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none")
# Keys that have a column of their own in the table of a sweep's jobs.
_CELL_KEYS = frozenset({"backbone", "model", "task", "dataset", "seed", "seeds"})


@dataclass
class Sweep:
    """A sweep that can be started: all its jobs, composed and checked.

    Attributes:
        verb: ``pretrain``, ``probe`` or ``inspect``.
        folder: Holds the folders of the jobs.
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
        """The jobs that are not finished, or that start afresh."""
        states = (state_of(Path(job.output_dir).expanduser())[0] for job in self.jobs)
        jobs = zip(self.jobs, self.runs, states, strict=True)
        return [job for job, run, state in jobs if run.overwrite or state != FINISHED]


@dataclass(frozen=True)
class RunJob:
    """The function that a launcher calls for each job, in this process or on a node."""

    verb: str
    execute: Callable[[Any], object]

    def __call__(self, config: DictConfig) -> None:
        from hydra.core.hydra_config import HydraConfig

        run = typed(config, self.verb, HydraConfig.get().runtime.choices)
        # Flushed at once: on a node the log is read while the job runs.
        print(f"\njob {Path(run.output_dir).name}: {run.output_dir}", flush=True)
        try:
            self.execute(run)
        except FinishedRun as finished:
            print(finished)
        except InputError:
            # A job that is refused before it has a folder would leave no reason for the report to show.
            if not read_status(Path(run.output_dir)):
                with open_run(Path(run.output_dir), {}, verb=self.verb):
                    raise
            raise


def sweep(verb: str, arguments: Sequence[str], execute: Callable[[Any], object]) -> None:
    """Run a job for every combination of the overrides' comma lists, or print what would be run.

    Args:
        verb: ``pretrain``, ``probe`` or ``inspect``.
        arguments: Overrides as on the command line, without ``-m``; ``dry_run=true`` only prints.
        execute: Does one composed run.

    Raises:
        InputError: An override is wrong or the jobs cannot be launched, and nothing was started; or every job that
            failed was refused for its input.
        FailedRun: A job failed; the others were run.
    """
    is_dry_run = [argument == "dry_run=true" for argument in arguments if argument.startswith("dry_run=")]
    for argument in arguments:
        if argument.startswith("dry_run=") and argument not in {"dry_run=true", "dry_run=false"}:
            raise InputError(f"{argument}: true or false")
    plan = planned(verb, [argument for argument in arguments if not argument.startswith("dry_run=")])
    if is_dry_run and is_dry_run[-1]:
        print(description(plan), end="")
        return
    if plan.is_slurm and shutil.which("srun") is None:
        raise InputError("hydra/launcher=slurm: srun was not found; start it on the cluster, or use dry_run=true")
    # The folder may be given by another name now; and earlier jobs that this command does not name stay in the plan.
    earlier = [replace(job, output_dir=str(plan.folder / str(job.number))) for job in _planned_earlier(plan.folder)]
    jobs_by_number = {job.number: job for job in [*earlier, *plan.jobs]}
    try:
        write_plan(plan.folder, verb, [jobs_by_number[number] for number in sorted(jobs_by_number)])
    except OSError as error:
        raise InputError(f"output_dir: {plan.folder} cannot be written ({error.strerror})") from error
    jobs = plan.open_jobs
    print(f"sweep: {plan.folder}, {len(plan.jobs)} jobs, {len(plan.jobs) - len(jobs)} of them finished already")
    if jobs:
        _launch(plan, jobs, execute)
    print(f"\nsweep: {plan.folder} is finished\nnext:  musictf report {shlex.quote(str(plan.folder))}")


def planned(verb: str, arguments: Sequence[str]) -> Sweep:
    """Compose and check every job of a sweep.

    Args:
        verb: ``pretrain``, ``probe`` or ``inspect``.
        arguments: Overrides as on the command line, those of Hydra itself among them.

    Raises:
        InputError: An override is wrong, or the folder holds another sweep.
    """
    register()
    settings = [argument for argument in arguments if argument.startswith(("hydra.", "hydra/"))]
    # Settings of Hydra are those of the launcher, the same for all jobs; they are no part of a job.
    combinations, folder = _combinations(verb, [argument for argument in arguments if argument not in settings])
    numbers = _numbers(verb, combinations, folder)
    varied = _varied(combinations)
    jobs, runs = [], []
    # All composed before the first starts, so that a mistake in the last one costs no computing.
    for number, overrides in zip(numbers, combinations, strict=True):
        try:
            run = compose(verb, overrides)
        except InputError as error:
            raise InputError(f"job {number} of the sweep: {error}") from None
        other = " ".join(override for override in overrides if _key(override) in varied - _CELL_KEYS)
        jobs.append(Job(number, tuple(overrides), str(folder / str(number)), _cell(verb, run) | {"other": other}))
        runs.append(run)
    plan = Sweep(verb, folder, jobs, runs, settings)
    _refuse_unlaunchable(plan)
    launcher_config(plan)  # refuses a misspelt setting
    return plan


def description(plan: Sweep) -> str:
    """Text of a dry run: the jobs of a sweep, and the parameters for the launcher of SLURM jobs."""
    lines = [f"{len(plan.jobs)} jobs of musictf {plan.verb} in {plan.folder}; nothing was started (dry_run=true)"]
    open_jobs = plan.open_jobs
    for job in plan.jobs:
        state = "" if job in open_jobs else "   (finished already)"
        lines += [f"{job.number:>4}  {shlex.join(job.overrides)}{state}", f"      -> {job.output_dir}"]
    if plan.is_slurm and open_jobs:
        parameters = slurm_parameters(launcher_config(plan))
        lines += ["", f"submitit gets {len(open_jobs)} jobs for sbatch, with these parameters of hydra.launcher:"]
        lines += [f"  {name}={value}" for name, value in parameters.items()]
    return "\n".join(lines) + "\n"


def slurm_parameters(config: DictConfig) -> dict[str, Any]:
    """The parameters of the SLURM launcher that are set, by their names in ``hydra.launcher``.

    Args:
        config: Hydra's own configuration, as `launcher_config` makes it.
    """
    from omegaconf import OmegaConf

    parameters = OmegaConf.to_container(config.hydra.launcher, resolve=True)
    assert isinstance(parameters, Mapping)
    # A leading underscore marks what Hydra reads itself.
    return {str(k): v for k, v in parameters.items() if v is not None and not str(k).startswith("_")}


def _combinations(verb: str, arguments: Sequence[str]) -> tuple[list[list[str]], Path]:
    """The overrides of each job, without ``output_dir``, and the sweep's folder."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException, OverrideParseException

    folder = Path("runs", verb, time.strftime("sweep-%Y%m%d-%H%M%S"))
    values: dict[str, list[str]] = {}  # the last override of a key counts, as in a single run
    try:
        for override in OverridesParser.create().parse_overrides(literal_paths(arguments, sweeping=True)):
            key = override.get_key_element()
            if key == "output_dir":
                if override.is_sweep_override():
                    raise InputError(
                        "output_dir: one folder for the whole sweep; each job gets a folder of its own in it"
                    )
                folder = folder if override.value() is None else Path(str(override.value()))
            elif not override.is_sweep_override():
                values[key] = [override.get_value_element_as_str()]
            elif override.is_discrete_sweep():
                values[key] = list(override.sweep_string_iterator())
            else:
                raise InputError(f"{override.input_line}: an interval has no end of values; give a comma list")
    except OverrideParseException as error:
        raise InputError(f"cannot read {error.override!r} as key=value (quote brackets and blanks)") from None
    except HydraException as error:
        raise InputError(" ".join(str(error).split())) from None
    choices = ([f"{key}={value}" for value in texts] for key, texts in values.items())
    return [list(overrides) for overrides in itertools.product(*choices)], folder.expanduser()


def _numbers(verb: str, combinations: Sequence[Sequence[str]], folder: Path) -> list[int]:
    """The number of each job: the one it has in the folder's plan, or the next free one."""
    earlier = _planned_earlier(folder)
    # How a job runs may change between two starts of a sweep, unless that is what is swept.
    varied = _varied(combinations) | _varied([job.overrides for job in earlier])
    ignored = run_class(verb).MAY_CHANGE - {key.split(".")[0] for key in varied}
    numbers = {_identity(job.overrides, ignored): job.number for job in earlier}
    identities = [_identity(overrides, ignored) for overrides in combinations]
    if len(set(identities)) < len(identities):
        raise InputError("the comma lists name the same job twice")
    # A longer or a shorter list of the same jobs continues the sweep; anything else is another sweep.
    if numbers and not (numbers.keys() <= set(identities) or set(identities) <= numbers.keys()):
        changed = " ".join(sorted(set(identities[0]) - set(next(iter(numbers)))))
        raise InputError(
            f"{folder} holds a sweep of other jobs ({changed or 'fewer keys'}); give the same keys to go on, "
            "or another output_dir="
        )
    # A number is also the name of a folder, so it is never given twice.
    free = itertools.count(max(numbers.values(), default=-1) + 1)
    return [numbers[identity] if identity in numbers else next(free) for identity in identities]


def _planned_earlier(folder: Path) -> list[Job]:
    """The jobs of the sweep that a folder holds; refuses a folder that holds something else."""
    if (folder / "status.json").is_file():
        raise InputError(f"output_dir: {folder} holds a run, not a sweep; choose another folder")
    if not (folder / PLAN).is_file():
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise InputError(f"output_dir: {folder} is not empty and holds no sweep; choose another folder")
        return []
    jobs: list[Job] = read_plan(folder / PLAN)["jobs"]
    return jobs


def _cell(verb: str, run: Any) -> dict[str, str]:
    """The cell that a run fills in the table of a sweep."""
    if verb == "probe":
        seeds = ",".join(map(str, run.seeds))
        return {"backbone": run.backbone, "task": run.task.display_name, "dataset": run.dataset.label, "seed": seeds}
    if verb == "inspect":
        return {"backbone": run.backbone, "task": verb, "dataset": run.dataset.label, "seed": ""}
    return {"backbone": run.choices["model"], "task": verb, "dataset": run.dataset.label, "seed": str(run.seed)}


def _refuse_unlaunchable(plan: Sweep) -> None:
    """Refuse before the start what the launcher cannot do."""
    for job, run in zip(plan.jobs, plan.runs, strict=True):
        devices = run.trainer.devices
        if not plan.is_slurm and devices not in (1, "1"):
            raise InputError(
                f"job {job.number}: trainer.devices={devices} in a local sweep: sweep single-process jobs, "
                "or send them to SLURM (hydra/launcher=slurm)"
            )
        # -1 and "auto" mean the GPUs of this machine, which is not where the job will run.
        if plan.is_slurm and not (isinstance(devices, int) and devices > 0):
            raise InputError(f"job {job.number}: trainer.devices={devices}: SLURM needs a number of them")
    if not plan.is_slurm:
        return
    if importlib.util.find_spec("submitit") is None:
        raise InputError("hydra/launcher=slurm needs the submitit plugin: pip install musictf[slurm]")
    # One job array has one allocation for all its jobs.
    allocations = {(run.trainer.devices, run.trainer.num_nodes, run.trainer.accelerator == "cpu") for run in plan.runs}
    if len(allocations) > 1:
        raise InputError("the jobs ask SLURM for different devices or nodes: one sweep for each")


def _launch(plan: Sweep, jobs: Sequence[Job], execute: Callable[[Any], object]) -> None:
    """Run jobs by the launcher, wait for them, and raise an error if any job failed.

    Raises:
        InputError: every failed job was refused for its input.
        FailedRun: some job failed for another reason, or did not end.
    """
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.plugins import Plugins
    from hydra.experimental.callback import Callback
    from hydra.types import HydraContext

    config = launcher_config(plan)
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3", job_name="musictf"):
        # An instance of the public base class, whose methods do nothing, replaces Hydra's private list of callbacks.
        callbacks: Any = Callback()
        context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=callbacks)
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=context, task_function=RunJob(plan.verb, execute), config=config
        )
        # The launcher numbers its jobs from 0; folders are named by the numbers of the plan instead.
        overrides = [[*job.arguments(), f"hydra.sweep.subdir={job.number}"] for job in jobs]
        try:
            job_returns = launcher.launch(overrides, 0)
        except RuntimeError as lost:  # of submitit: a job was killed, or could not be submitted
            print(lost, file=sys.stderr)
            report = shlex.join(["musictf", "report", str(plan.folder)])
            raise FailedRun(f"not all jobs ended; {report} lists which") from lost
    failed = [
        (job, error) for job, job_return in zip(jobs, job_returns, strict=True) if (error := _error_of(job_return))
    ]
    for _, error in failed:
        if not isinstance(error, InputError | FailedRun):  # a defect keeps its traceback
            traceback.print_exception(error)
    if failed:
        messages = "; ".join(f"job {job.number}: {error}" for job, error in failed)
        kind = InputError if all(isinstance(error, InputError) for _, error in failed) else FailedRun
        raise kind(f"{len(failed)} of {len(jobs)} jobs failed: {messages}")


def _error_of(job_return: Any) -> BaseException | None:
    """The exception that a job raised; None without one."""
    # `JobReturn.return_value` raises it again, after a line on stderr; a future keeps what a call raises.
    with redirect_stderr(io.StringIO()), ThreadPoolExecutor(1) as pool:
        return pool.submit(getattr, job_return, "return_value").exception()


def launcher_config(plan: Sweep) -> DictConfig:
    """Hydra's own configuration for the jobs of a sweep.

    Raises:
        InputError: A setting of Hydra does not exist.
    """
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    overrides = [*_NO_HYDRA_FILES, f"hydra.sweep.dir={quoted(str(plan.folder))}"]
    given = {_key(setting) for setting in plan.settings}
    # The group file asks for a GPU for each process, which jobs on the CPU do not need.
    if plan.is_slurm and plan.runs[0].trainer.accelerator == "cpu" and "hydra.launcher.gpus_per_node" not in given:
        overrides.append("hydra.launcher.gpus_per_node=null")
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3", job_name="musictf"):
        try:
            # Interpolations of the launcher (trainer.devices) follow the first job; all jobs agree in them.
            overrides += [*plan.settings, *plan.jobs[0].arguments()]
            return hydra.compose(plan.verb, overrides, return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            # Hydra's advice after these words does not apply here.
            reason = re.split(" To append| Config search path", " ".join(str(error).split()))[0]
            raise InputError(f"{' '.join(plan.settings)}: {reason}") from None


def _key(override: str) -> str:
    return override.partition("=")[0]


def _identity(overrides: Sequence[str], ignored: frozenset[str]) -> tuple[str, ...]:
    """The overrides by which a job is recognised when its sweep is started again."""
    return tuple(sorted(override for override in overrides if _key(override).split(".")[0] not in ignored))


def _varied(combinations: Sequence[Sequence[str]]) -> set[str]:
    """Keys whose value differs among jobs."""
    values: dict[str, set[str]] = defaultdict(set)
    for override in (override for overrides in combinations for override in overrides):
        values[_key(override)].add(override)
    return {key for key, texts in values.items() if len(texts) > 1}
