"""From command-line keys to typed runs: Hydra composes, dataclasses check.

Values live in ``conf/``, schemas beside the code they configure. A misspelt key, a wrong type or an unknown choice is
one line that names the key and what could stand there; nothing has started by then. Importing this module is cheap:
Hydra and torch are imported when something is composed.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from musictf.errors import InputError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from musictf.datasets.base import Dataset

Base = TypeVar("Base")

# Groups whose choices are classes, one a module, and the packages that hold them. A file of ``conf/`` may add to them.
CLASS_GROUPS = {"dataset": ("datasets", "corpora", "packing", "synthesis"), "task": ("tasks",)}
_CLASS_NAME = re.compile(r'^    name: (?:ClassVar\[str\]|str) = "(\w+)"', re.MULTILINE)


def conf_folder() -> Path:
    """``conf/`` inside the installed package, or beside it in a checkout."""
    here = Path(__file__).resolve().parent
    return here / "conf" if (here / "conf").is_dir() else here.parent / "conf"


def groups() -> dict[str, dict[str, str]]:
    """The choices of each configuration group, by name, each with a line that says what it is.

    Classes are found in the source of their modules: importing these would load torch, and ``--help`` must not.
    """
    choices: dict[str, dict[str, str]] = {}
    for file in sorted(conf_folder().glob("*/*.yaml")):
        comments = [line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
        lines = [line.removeprefix("# ") for line in comments if "@package" not in line]
        choices.setdefault(file.parent.name, {})[file.stem] = lines[0] if lines else ""
    for group, packages in CLASS_GROUPS.items():
        for file in (file for name in packages for file in (Path(__file__).parent / name).glob("*.py")):
            source = file.read_text(encoding="utf-8")
            if match := _CLASS_NAME.search(source):
                choices.setdefault(group, {})[match[1]] = source.partition("\n")[0].strip('"')
    return {group: dict(sorted(names.items())) for group, names in sorted(choices.items())}


def compose(verb: str, overrides: Sequence[str] = ()) -> Any:
    """The run that a verb and its overrides describe: a `PretrainRun`, a `ProbeRun` or an `InspectRun`.

    Args:
        verb: ``pretrain``, ``probe`` or ``inspect``.
        overrides: ``key=value`` each, as on the command line.

    Raises:
        InputError: a key, a value or a choice is not one.
    """
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import open_dict
    from omegaconf.errors import OmegaConfBaseException

    register()
    for override in overrides:
        if "=" not in override or override.startswith(("+", "~", "-")):
            raise InputError(f"{override!r} is not key=value (keys: musictf {verb} --help)")
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3", job_name="musictf"):
        try:
            config = hydra.compose(verb, list(overrides), return_hydra_config=True)
            choices = config.hydra.runtime.choices
            with open_dict(config):
                del config["hydra"]
            return typed(config, verb, choices)
        except (HydraException, OmegaConfBaseException) as error:
            raise InputError(_explanation(error, verb, overrides)) from None
        except ValueError as error:  # Hydra's word for a choice that is no name
            if "Config group override" not in str(error):
                raise
            wrong = next((o for o in overrides if o.split("=")[0] in groups() and _is_no_name(o)), "a group")
            names = ", ".join(groups().get(wrong.split("=")[0], {}))
            raise InputError(f"{wrong} is not a choice: one of {names}") from None


def parsed(schema: type, overrides: Sequence[str], verb: str) -> Any:
    """A dataclass without groups, filled from ``key=value`` arguments.

    Raises:
        InputError: a key or a value is not one.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    default = OmegaConf.structured(schema)
    known = [str(key) for key in default]
    for override in overrides:
        key = override.split("=", 1)[0].split(".")[0]
        if "=" not in override or key not in known:
            raise InputError(
                f"{override!r} is not key=value with a key among {', '.join(known)} (musictf {verb} --help)"
            )
    try:
        return OmegaConf.to_object(OmegaConf.merge(default, OmegaConf.from_dotlist(list(overrides))))
    except OmegaConfBaseException as error:
        raise InputError(str(error).splitlines()[0]) from None


def typed(config: DictConfig, verb: str, choices: Mapping[str, Any]) -> Any:
    """A composed configuration as plain dataclasses, with the choices of its groups noted in them."""
    from omegaconf import OmegaConf

    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise InputError(f"{verb} needs {missing[0]}=... (examples: musictf {verb} --help)")
    run: Any = OmegaConf.to_object(config)
    run.choices = {group: str(name) for group, name in choices.items() if "/" not in group}
    return run


def run_class(verb: str) -> Any:
    """The dataclass of the runs of a verb."""
    if verb == "pretrain":
        from musictf.pretraining.run import PretrainRun

        return PretrainRun
    if verb == "probe":
        from musictf.evaluation.run import ProbeRun

        return ProbeRun
    from musictf.inspection.run import InspectRun

    return InspectRun


def register() -> None:
    """Offer the schema of every run to Hydra, and every task and corpus under its name."""
    from hydra.core.config_store import ConfigStore

    import musictf.tasks
    from musictf.audio.augment import AugmentConfig
    from musictf.distributed import TrainerConfig
    from musictf.evaluation.online_evaluator import OnlineProbe
    from musictf.models.vit1d import ViT1DConfig
    from musictf.pretraining.module import NTXent
    from musictf.tasks.base import Task

    store = ConfigStore.instance()
    for verb in ("pretrain", "probe", "inspect"):
        store.store(name=f"{verb}_run", node=run_class(verb))
    store.store(group="model", name="ViT1D", node=ViT1DConfig)
    store.store(group="objective", name="NTXent", node=NTXent)
    store.store(group="augment", name="Augment", node=AugmentConfig)
    store.store(group="online_probe", name="OnlineProbe", node=OnlineProbe)
    store.store(group="trainer", name="Trainer", node=TrainerConfig)
    for cls in subclasses(musictf.tasks, Task):
        store.store(group="task", name=cls.name, node=cls)
    for corpus in dataset_classes():
        store.store(group="dataset", name=corpus.name, node=corpus)


def dataset_classes() -> Iterator[type[Dataset]]:
    """Every corpus there is: published ones, the user's own folders, packs, and the synthetic one."""
    from musictf.datasets.base import Dataset

    for name in CLASS_GROUPS["dataset"]:
        yield from subclasses(importlib.import_module(f"musictf.{name}"), Dataset)


def subclasses(package: ModuleType, base: type[Base]) -> Iterator[type[Base]]:
    """Every subclass of ``base`` that a module of a package defines: a new file is found, no list is edited."""
    modules = pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
    for module in (module for module in modules if module.name != base.__module__):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.name:
                yield value


def _explanation(error: Exception, verb: str, overrides: Sequence[str]) -> str:
    """One line about what Hydra or OmegaConf complain of."""
    from hydra.errors import MissingConfigException, OverrideParseException

    if isinstance(error, MissingConfigException) and error.missing_cfg_file and "/" in error.missing_cfg_file:
        group, name = error.missing_cfg_file.rsplit("/", 1)
        return f"{group}={name} is not a choice: one of {', '.join(groups().get(group, {}))}"
    causes = [error, *_causes(error)]
    texts = [str(cause) for cause in causes]
    key = next((match[1] for text in texts if (match := re.search(r"Could not override '([^'@]+)", text))), None)
    if key is not None:
        return _unknown_key(key, verb, overrides)
    text = texts[min(1, len(texts) - 1)].splitlines()[0]
    full_key = next((m[1] for t in texts if (m := re.search(r"full_key: (\S+)", t))), None)
    if isinstance(error, OverrideParseException):
        return f"cannot read {error.override!r} as key=value (quote brackets and blanks: 'key=[a,b]')"
    return f"{full_key}: {text}" if full_key and full_key not in text else text


def _is_no_name(override: str) -> bool:
    value = override.partition("=")[2]
    return value.lower() in {"true", "false"} or re.fullmatch(r"[-\d.e]+", value) is not None


def _unknown_key(key: str, verb: str, overrides: Sequence[str]) -> str:
    """Says what is near a key that does not exist, or what its section holds."""
    # Without the key itself: it may be a group that this verb does not have.
    chosen = [o for o in overrides if o.split("=")[0] in groups() and o.split("=")[0] != key]
    known = [*_keys(verb, chosen), *groups()]
    section, _, name = key.rpartition(".")
    siblings = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == section}
    # Compared without the section, which would make any two of its keys look alike.
    near = difflib.get_close_matches(name, siblings, n=1, cutoff=0.7)
    if near:
        return f"unknown key {key!r}, did you mean {siblings[near[0]]!r}?"
    if section in groups() and not any(override.startswith(f"{section}=") for override in chosen):
        names = ", ".join(groups()[section])
        return f"unknown key {key!r}: choose {section}=... first, one of {names}"
    if section and siblings:
        return f"unknown key {key!r}: known are {', '.join(siblings.values())}"
    return f"unknown key {key!r}: see musictf {verb} --help"


def _causes(error: BaseException) -> Iterator[BaseException]:
    while (cause := error.__cause__ or error.__context__) is not None:
        yield cause
        error = cause


def _keys(verb: str, choices: Sequence[str]) -> list[str]:
    """Every key that a verb knows with these choices of groups."""
    import hydra
    from omegaconf import DictConfig

    def flat(node: DictConfig, prefix: str) -> Iterator[str]:
        for name in map(str, node):
            yield f"{prefix}{name}"
            child = node._get_node(name)
            if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
                yield from flat(child, f"{prefix}{name}.")

    return list(flat(hydra.compose(verb, list(choices)), ""))
