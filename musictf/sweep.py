"""Sweeps: ``-m key=a,b`` through Hydra's sweeper and launcher (local, or SLURM by the submitit plugin).

A sweep's jobs are single processes, or go to SLURM: Lightning's launcher repeats the command line for every other
rank, ``-m`` included, so a local job of several processes would start the sweep again in each.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from musictf.config import conf_folder, register, typed
from musictf.errors import InputError
from musictf.runs import FinishedRun

_SWEEP = "sweep-${now:%Y%m%d-%H%M%S}"


def sweep(verb: str, overrides: Sequence[str], job: Callable[[Any], None]) -> None:
    """Run ``job`` once for every combination of the overrides' comma lists.

    Raises:
        InputError: a job would need several processes on this machine.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import DictConfig

    register()
    refused: list[InputError] = []

    def one(config: DictConfig) -> None:
        settings = HydraConfig.get()
        run = typed(config, verb, settings.runtime.choices)
        if run.trainer.devices not in (1, "1") and "submitit" not in str(settings.launcher):
            refused.append(
                InputError(
                    f"trainer.devices={run.trainer.devices} in a local sweep: sweep single-process jobs, "
                    "or send them to SLURM (hydra/launcher=slurm)"
                )
            )
            return
        run.output_dir = str(Path(run.output_dir or settings.sweep.dir) / str(settings.job.num))
        try:
            job(run)
        except FinishedRun as done:
            print(done)
        except InputError as error:
            refused.append(error)  # Hydra would print its traceback: told below, on one line

    before = sys.argv
    # Hydra's own files would stand in the run folders before the runs do.
    own = ["hydra.output_subdir=null", "hydra/job_logging=none", f"hydra.sweep.dir=runs/{verb}/{_SWEEP}"]
    sys.argv = [before[0], "--multirun", *own, *overrides]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=verb)(one)()
    finally:
        sys.argv = before
    if refused:
        raise InputError("; ".join(map(str, refused)))
