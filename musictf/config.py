"""From command-line keys to typed runs: Hydra composes, dataclasses check.

Values live in ``conf/``, schemas beside the code they configure. A misspelt key, a wrong type or an unknown choice
stops a command before anything runs, with one line that names the key and the possible values. Importing this module is
cheap: Hydra and torch are imported when something is composed.
"""

from __future__ import annotations

import difflib
import importlib
import numbers
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

# Keys whose values are names of files and folders, and those of them that take a list.
_PATH_KEY = re.compile(r"(.*[._])?root|(.*\.)?exclusions|output_dir|backbone|like|resume|estimates")
_LIST_KEY = re.compile(r"(.*[._])?root|estimates")
_UNREADABLE = "cannot read {!r} as key=value (quote brackets and blanks: 'key=[a,b]')"
_SWEEP_FUNCTION = re.compile(r"(choice|glob|shuffle|sort|tag)\(.*\)")
# One item and the comma after it: a list, a call, a text in quotes, or anything else without a comma.
_ITEM = re.compile(r"""\s*(\[[^\]]*\]|\w+\([^)]*\)|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^,]*?)\s*,""")


def conf_folder() -> Path:
    """``conf/`` inside the installed package, or beside it in a checkout."""
    here = Path(__file__).resolve().parent
    # A wheel ships conf/ inside the package; in a checkout users find it at the top.
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
        InputError: A key, a value or a choice does not exist.
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
    overrides = literal_paths(overrides)
    GlobalHydra.instance().clear()  # Hydra allows one composition at a time in a process
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3", job_name="musictf"):
        try:
            # Hydra's own part of the configuration holds the names of the choices.
            config = hydra.compose(verb, list(overrides), return_hydra_config=True)
            choices = config.hydra.runtime.choices
            with open_dict(config):
                del config["hydra"]
            return typed(config, verb, choices)
        except (HydraException, OmegaConfBaseException) as error:
            raise InputError(_explanation(error, verb, overrides)) from None
        except ValueError as error:  # Hydra's answer to a choice that is a number or a boolean
            if "Config group override" not in str(error):
                raise
            no_name = re.compile(r"(?i)true|false|[-\d.e]+")
            pairs = [override.partition("=") for override in overrides]
            group, value = next(((g, v) for g, _, v in pairs if g in groups() and no_name.fullmatch(v)), ("", ""))
            if not group:
                raise
            raise InputError(f"{group}={value} is not a choice: one of {', '.join(groups()[group])}") from None


def literal_paths(overrides: Sequence[str], sweeping: bool = False) -> list[str]:
    """Overrides in which Hydra reads the names of files and folders as they stand.

    A name may hold anything that a file system allows (``Greatest Hits (1998)``, ``#1``, ``a, b``): where Hydra's
    grammar would read something else, the name is put in quotes. ``~/`` at its beginning becomes the home folder, which
    a shell does not do after ``key=``. A name in quotes is left to Hydra.

    Args:
        overrides: ``key=value`` each; keys that are no paths are left alone.
        sweeping: Commas outside of quotes and brackets separate the values of a sweep.

    Returns:
        As many overrides, in the same order.
    """
    literal = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if equals and _PATH_KEY.fullmatch(key):
            names = _items(value) if sweeping else [value]
            override = f"{key}={','.join(_literal_name(key, name, sweeping) for name in names)}"
        literal.append(override)
    return literal


def _literal_name(key: str, name: str, sweeping: bool) -> str:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    from musictf.results.sweep_plan import quoted

    is_quoted = len(name) > 1 and name[0] == name[-1] and name[0] in "'\""
    if name in {"", "null"} or is_quoted or (sweeping and _SWEEP_FUNCTION.fullmatch(name)):
        return name
    # Only these keys accept several folders. Text in brackets may also be the name of a folder that exists.
    is_list = _LIST_KEY.fullmatch(key) and name[0] == "[" and name[-1] == "]" and not Path(name).exists()
    if is_list:
        return f"[{','.join(_literal_name(key, item, sweeping) for item in _items(name[1:-1]))}]"
    path = str(Path(name).expanduser()) if name == "~" or name.startswith("~/") else name
    # Quoted only where needed: the plan of a sweep recognises its jobs by the text of their overrides.
    try:
        reads_as_itself = OverridesParser.create().parse_override(f"key={path}").value() == path
    except HydraException:  # no value, or a function that does not exist: "Hits (1998)"
        reads_as_itself = False
    return path if reads_as_itself else quoted(path)


def _items(text: str) -> list[str]:
    """Items between commas that are outside of quotes, brackets and parentheses."""
    return [match[1] for match in _ITEM.finditer(f"{text},")] if text.strip() else []


def python_overrides(keys: Mapping[str, Any], section: str = "") -> list[str]:
    """Overrides that give keys these Python values, whatever characters a text holds.

    Args:
        keys: Values by key: text, paths, numbers, booleans, None, lists of them. A mapping holds the keys of a section.
        section: Put before each key, with its dot.

    Raises:
        InputError: A value is of another type.

    Example:
        >>> python_overrides({"seeds": [0, 1], "probe": {"steps": 100}, "dataset.root": "a, b=c"})
        ['seeds=[0,1]', 'probe.steps=100', "dataset.root='a, b=c'"]
    """
    overrides = []
    for key, value in keys.items():
        name = f"{section}{key}"
        if isinstance(value, Mapping):
            overrides += python_overrides(value, f"{name}.")
        else:
            overrides.append(f"{name}={_override_value(name, value)}")
    return overrides


def _override_value(key: str, value: Any) -> str:
    from musictf.results.sweep_plan import quoted

    if value is None:
        return "null"
    if isinstance(value, bool):  # before numbers: a bool is an int in Python
        return str(value).lower()
    if isinstance(value, numbers.Integral):  # those of numpy too
        return str(int(value))
    if isinstance(value, numbers.Real):
        return repr(float(value))  # as many digits as read back as the same number
    if isinstance(value, str | Path):
        text = str(Path(value).expanduser()) if _PATH_KEY.fullmatch(key) and str(value)[:2] == "~/" else str(value)
        # OmegaConf would take ${ for an interpolation; backslashes before it count double.
        return quoted(re.sub(r"(\\*)\$\{", r"\1\1\\${", text))
    if isinstance(value, Sequence):
        return f"[{','.join(_override_value(key, item) for item in value)}]"
    kind = type(value).__name__
    raise InputError(f"{key}={value!r}: a value of type {kind} cannot be used; give text, a number or a list")


def parsed(schema: type, overrides: Sequence[str], verb: str) -> Any:
    """A dataclass without groups, filled from ``key=value`` arguments.

    Args:
        schema: The dataclass.
        overrides: ``key=value`` each, as on the command line.
        verb: Names the help in messages.

    Raises:
        InputError: A key or a value does not exist.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    config = OmegaConf.structured(schema)
    known = [str(key) for key in config]
    for text in overrides:
        key = text.split("=", 1)[0].split(".")[0]
        if "=" not in text or key not in known:
            raise InputError(f"{text!r} is not key=value with a key among {', '.join(known)} (musictf {verb} --help)")
    try:
        for override in OverridesParser.create().parse_overrides(literal_paths(overrides)):
            OmegaConf.update(config, override.key_or_group, override.value())
        return OmegaConf.to_object(config)
    except OverrideParseException as error:
        raise InputError(_UNREADABLE.format(error.override)) from None
    except OmegaConfBaseException as error:
        raise InputError(str(error).splitlines()[0]) from None


def typed(config: DictConfig, verb: str, choices: Mapping[str, Any]) -> Any:
    """A composed configuration as plain dataclasses, with the choices of its groups in the field ``choices``.

    Raises:
        InputError: A required key has no value.
    """
    from omegaconf import OmegaConf

    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise InputError(f"{verb} needs {missing[0]}=... (examples: musictf {verb} --help)")
    run: Any = OmegaConf.to_object(config)
    # Groups with a slash are Hydra's own: hydra/launcher, hydra/sweeper.
    run.choices = {group: str(name) for group, name in choices.items() if "/" not in group}
    return run


def run_class(verb: str) -> Any:
    """The dataclass of the runs of a verb."""
    # Imported only when needed: each of them imports torch.
    if verb == "pretrain":
        from musictf.pretraining.pretrain_run import PretrainRun

        return PretrainRun
    if verb == "probe":
        from musictf.evaluation.probe_run import ProbeRun

        return ProbeRun
    from musictf.inspection.inspect_run import InspectRun

    return InspectRun


def register() -> None:
    """Offer the schema of every run to Hydra, and every task and corpus under its name."""
    from hydra.core.config_store import ConfigStore

    import musictf.tasks
    from musictf.audio.augment import AugmentConfig
    from musictf.audio.front_end import FrontEndConfig
    from musictf.distributed import TrainerConfig
    from musictf.evaluation.online_evaluator import OnlineProbe
    from musictf.models.vit1d import ViT1DConfig
    from musictf.pretraining.module import NTXent
    from musictf.tasks.base import Task

    store = ConfigStore.instance()
    for verb in ("pretrain", "probe", "inspect"):
        store.store(name=f"{verb}_run", node=run_class(verb))
    store.store(group="model", name="ViT1D", node=ViT1DConfig)
    store.store(group="front_end", name="FrontEnd", node=FrontEndConfig)
    store.store(group="objective", name="NTXent", node=NTXent)
    store.store(group="augment", name="Augment", node=AugmentConfig)
    store.store(group="online_probe", name="OnlineProbe", node=OnlineProbe)
    store.store(group="trainer", name="Trainer", node=TrainerConfig)
    for cls in subclasses(musictf.tasks, Task):
        store.store(group="task", name=cls.name, node=cls)
    for corpus in dataset_classes():
        store.store(group="dataset", name=corpus.name, node=corpus)


def dataset_classes() -> Iterator[type[Dataset]]:
    """Every class of corpora: published ones, the user's own folders, packs, and the synthetic one."""
    from musictf.datasets.base import Dataset

    for name in CLASS_GROUPS["dataset"]:
        yield from subclasses(importlib.import_module(f"musictf.{name}"), Dataset)


def subclasses(package: ModuleType, base: type[Base]) -> Iterator[type[Base]]:
    """Every subclass of ``base`` that a module of a package defines; new files are found automatically."""
    modules = pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
    for module in (module for module in modules if module.name != base.__module__):
        for value in vars(importlib.import_module(module.name)).values():
            # A class that the module only imports belongs to another module.
            if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.name:
                yield value


def _explanation(error: Exception, verb: str, overrides: Sequence[str]) -> str:
    """One line that explains an error of Hydra or OmegaConf."""
    from hydra.errors import MissingConfigException, OverrideParseException

    if isinstance(error, MissingConfigException) and error.missing_cfg_file and "/" in error.missing_cfg_file:
        group, name = error.missing_cfg_file.rsplit("/", 1)
        return f"{group}={name} is not a choice: one of {', '.join(groups().get(group, {}))}"
    # Hydra wraps the errors of OmegaConf, and the wrapped one says what is wrong.
    texts, cause = [str(error)], error.__cause__ or error.__context__
    while cause is not None:
        texts.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    key = next((match[1] for text in texts if (match := re.search(r"Could not override '([^'@]+)", text))), None)
    if key is not None:
        return _unknown_key(key, verb, overrides)
    text = texts[min(1, len(texts) - 1)].splitlines()[0]
    # A wrong type names the key on a line of its own.
    full_key = next((m[1] for t in texts if (m := re.search(r"full_key: (\S+)", t))), None)
    if isinstance(error, OverrideParseException):
        return _UNREADABLE.format(error.override)
    return f"{full_key}: {text}" if full_key and full_key not in text else text


def _unknown_key(key: str, verb: str, overrides: Sequence[str]) -> str:
    """One line about a key that does not exist: the nearest key, or the keys of its section."""
    # Without the key itself: it may be a group that this verb does not have.
    chosen = [o for o in overrides if o.split("=")[0] in groups() and o.split("=")[0] != key]
    known = [*_keys(verb, chosen), *groups()]
    section, _, name = key.rpartition(".")
    siblings = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == section}
    # Compared without the section, which would make any two of its keys look alike.
    near = difflib.get_close_matches(name, siblings, n=1, cutoff=0.7)  # our choice: "dept" matches "depth"
    if near:
        return f"unknown key {key!r}, did you mean {siblings[near[0]]!r}?"
    if section in groups() and not any(override.startswith(f"{section}=") for override in chosen):
        names = ", ".join(groups()[section])
        return f"unknown key {key!r}: choose {section}=... first, one of {names}"
    if section and siblings:
        return f"unknown key {key!r}: known are {', '.join(siblings.values())}"
    return f"unknown key {key!r}: see musictf {verb} --help"


def _keys(verb: str, choices: Sequence[str]) -> list[str]:
    """Every key that a verb has with these choices of groups."""
    import hydra
    from omegaconf import OmegaConf

    def flat(node: Mapping[Any, Any], prefix: str) -> Iterator[str]:
        for name, child in node.items():
            yield f"{prefix}{name}"
            if isinstance(child, Mapping):
                yield from flat(child, f"{prefix}{name}.")

    # Interpolations stay as they are: only the keys matter here.
    composed = OmegaConf.to_container(hydra.compose(verb, list(choices)))
    return list(flat(composed, "")) if isinstance(composed, Mapping) else []
