"""A mirror of a run in Weights & Biases. The files of the run folder are the results; the mirror only shows them.

Conventions: only rank 0 of a run writes. There is never a login prompt: without a key the mirror is written offline,
below the run folder, and ``wandb sync`` uploads it later. A backbone is an artifact named after the digest of its
bytes, so the run that made it and the runs that read it share one node of the lineage graph.
"""

from __future__ import annotations

import netrc
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlparse

from musictf.distributed import rank
from musictf.errors import InputError
from musictf.files import file_digest
from musictf.results.rows import RESULTS, read_rows
from musictf.run_folder import WandbConfig

if TYPE_CHECKING:
    from wandb import Artifact, Run

Mode = Literal["online", "offline", "disabled"]

_MODES: dict[str, Mode] = {"online": "online", "offline": "offline", "disabled": "disabled", "dryrun": "offline"}
_RUN_ID = "run_id"


class Tracker:
    """One run of Weights & Biases, or nothing at all where tracking is disabled.

    Example:
        >>> settings = WandbConfig(mode="disabled")
        >>> with Tracker.start("probe", Path("runs/x"), {"seed": 0}, settings, name="x") as tracker:
        ...     tracker.log({"train/loss": 1.0}, step=1)
    """

    def __init__(self, run: Run | None, restore: Mapping[str, str | None] | None = None) -> None:
        self._run = run
        self._restore = dict(restore or {})
        self._step = 0

    @classmethod
    def start(
        cls, job_type: str, run_dir: Path, config: Mapping[str, Any], settings: WandbConfig, name: str | None = None
    ) -> Tracker:
        """Open the mirror of a run; the same one when an unfinished folder is continued.

        Args:
            job_type: ``pretrain``, ``probe`` or ``inspect``.
            run_dir: The run folder; everything wandb writes goes to ``wandb/`` in it.
            config: Resolved configuration, as in ``config.yaml``.
            settings: Mode, project and group.
            name: Name of the run; the folder's name by default.

        Raises:
            InputError: ``online`` was requested and no key is configured, or the server refuses.
        """
        mode = resolve_mode(settings.mode)
        if mode == "disabled" or rank() != 0:
            return cls(None)
        import wandb

        folder = run_dir / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        # wandb's staging files belong in the run folder too; `finish` restores the environment.
        restore = {"WANDB_DATA_DIR": os.environ.get("WANDB_DATA_DIR")}
        os.environ.setdefault("WANDB_DATA_DIR", str(folder.resolve() / "staging"))
        options = {"config": dict(config), "job_type": job_type, "project": settings.project, "group": settings.group}
        options |= {"name": name or run_dir.resolve().name, "dir": str(run_dir)}
        try:
            return cls(_init(mode, settings.mode == "auto", folder, options), restore)
        except wandb.errors.Error as error:
            _restore_environment(restore)
            raise InputError(f"wandb.mode={mode}: {_first_line(error)}; wandb.mode=offline needs no server") from error

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish(0 if kind is None else 1)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Show metrics at an optimiser step."""
        # wandb drops what is logged at an earlier step than the last one.
        self._step = max(self._step, step)
        if self._run is not None:
            self._run.log(dict(metrics), step=self._step)

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Show a table, at the latest step."""
        if self._run is not None:
            import wandb

            # Without the step, wandb would add one of its own and then drop the next metrics as late.
            self._run.log({name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])}, step=self._step)

    def log_image(self, name: str, path: Path) -> None:
        """Show a picture from a file (PNG), at the latest step."""
        if self._run is not None:
            import wandb

            self._run.log({name: wandb.Image(str(path))}, step=self._step)

    def log_backbone(self, path: Path, metadata: Mapping[str, Any]) -> None:
        """Declare a backbone file as the output of this run."""
        if self._run is not None:
            artifact = _backbone_artifact(path, metadata)
            self._run.log_artifact(artifact)
            self._note("output_backbone", _reference(artifact, path))

    def use_backbone(self, path: Path) -> None:
        """Declare a backbone file as an input of this run.

        Offline, wandb refuses to declare inputs. The configuration has the name of the artifact, which follows from the
        bytes of the file, under ``input_backbone``, offline and online.
        """
        if self._run is not None:
            artifact = _backbone_artifact(path, {})
            self._note("input_backbone", _reference(artifact, path))
            if not self._run.offline:
                self._run.use_artifact(artifact)

    def _note(self, key: str, value: Mapping[str, str]) -> None:
        config: Any = None if self._run is None else self._run.config
        config.update({key: value}, allow_val_change=True)

    def finish(self, exit_code: int = 0) -> None:
        """Close the mirror; a second call does nothing."""
        if self._run is not None:
            self._run.finish(exit_code=exit_code)
            self._run = None
            _restore_environment(self._restore)


def flat_rows(folder: Path) -> tuple[list[str], list[list[Any]]]:
    """Columns and lines of the selected rows as a table: one line for each score."""
    columns = ["task", "dataset", "system", "readout", "layer", "seed", "decoder", "score", "mean", "low", "high"]
    lines = [
        [row["task"], row["dataset"], row["backbone"]["kind"], row["readout"], row["layer"], row["seed"]]
        + [row["decoder"]["name"], name, value["mean"], *value["ci95"]]
        for row in read_rows(folder / RESULTS)
        if row["selected"]
        for name, value in row["scores"].items()
    ]
    return columns, lines


def resolve_mode(mode: str) -> Mode:
    """The mode that a run will have: ``online``, ``offline`` or ``disabled``.

    ``auto`` follows ``$WANDB_MODE``; where that is not set it is online if a key is configured, else offline.

    Raises:
        InputError: The mode is online and no key is configured, or the environment names an unknown mode.
    """
    requested = os.environ.get("WANDB_MODE", "") if mode == "auto" else mode
    if not requested:
        return "online" if _has_key() else "offline"
    if requested not in _MODES:
        raise InputError(f"WANDB_MODE={requested!r} is unknown: one of {', '.join(_MODES)}")
    if _MODES[requested] == "online" and not _has_key():
        raise InputError("wandb.mode=online needs a key: set WANDB_API_KEY or run 'wandb login', or use offline")
    return _MODES[requested]


def _has_key() -> bool:
    """Whether wandb would find credentials by itself, in the environment or in a netrc file."""
    # Looked up as wandb does: asking wandb itself could open its login prompt.
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    named = os.environ.get("NETRC")
    files = [Path(named).expanduser()] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for path in filter(Path.is_file, files):
        try:
            if host in netrc.netrc(str(path)).hosts:
                return True
        except netrc.NetrcParseError:
            continue  # wandb cannot read it either
    return False


def _init(mode: Mode, may_fall_back: bool, folder: Path, options: Mapping[str, Any]) -> Run:
    """Start a run that prints nothing, captures no console and copies no code.

    With `may_fall_back`, where online was not requested, the run is offline if the server cannot be reached.
    """
    import wandb

    quiet = wandb.Settings(
        silent=True,
        console="off",
        save_code=False,
        disable_code=True,
        disable_git=True,  # the commit is in the configuration and in every results row
        symlink=False,
        init_timeout=30,
    )
    wandb.setup(quiet)  # wandb's login prints before it reads the settings of a run
    try:
        # Offline, wandb ignores resume and prints a warning about it.
        resume: Literal["allow"] | None = "allow" if mode == "online" else None
        return wandb.init(**options, id=_run_id(folder), mode=mode, resume=resume, settings=quiet)
    except wandb.errors.Error as error:
        if mode != "online" or not may_fall_back:
            raise
        print(f"wandb: {_first_line(error)}; this run is mirrored offline", file=sys.stderr)
        (folder / _RUN_ID).unlink()  # wandb still holds the id of the failed attempt
        return wandb.init(**options, id=_run_id(folder), mode="offline", settings=quiet)


def _run_id(folder: Path) -> str:
    """Id of the wandb run of a folder; the same each time an unfinished folder is continued."""
    path = folder / _RUN_ID
    if not path.is_file():
        path.write_text(secrets.token_hex(4))
    return path.read_text().strip()


def _restore_environment(environment: Mapping[str, str | None]) -> None:
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _backbone_artifact(path: Path, metadata: Mapping[str, Any]) -> Artifact:
    import wandb

    if not path.is_file():
        raise InputError(f"{path}: no backbone file to show in wandb")
    digest = file_digest(path)
    artifact = wandb.Artifact(f"backbone-{digest[:16]}", type="backbone", metadata={**metadata, "sha256": digest})
    # wandb derives the version from file names and contents: one fixed name keeps one backbone in one node.
    # A backbone file is never changed in place, so wandb need not copy it.
    artifact.add_file(str(path), name="backbone.safetensors", policy="immutable")
    return artifact


def _reference(artifact: Artifact, path: Path) -> dict[str, str]:
    return {"artifact": artifact.name, "sha256": artifact.metadata["sha256"], "path": str(path)}


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
