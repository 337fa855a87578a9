"""Text of ``--help``. Heavy packages are not imported, so that help is printed at once."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from musictf.commands import VERBS
from musictf.commands.keys import REQUIRED, SourceClass, find_class
from musictf.config import conf_folder, groups

_WIDTH = 100  # columns
_CLAUSE_COLUMN = 42  # where the clause of a key begins
# Groups whose choices have a dataclass each, with the packages that define them.
_SUBCLASSES = {
    "task": ("musictf.tasks",),
    "dataset": ("musictf.datasets", "musictf.corpora", "musictf.packing", "musictf.synthesis"),
    "online_probe": ("musictf.evaluation",),
}
# Without a choice these groups are off; their keys are shown as this choice has them.
_SHOWN_CHOICE = {"online_probe": "synthetic"}
_NOT_A_KEY = "choices"  # field of a run that the composition fills

_OVERVIEW = """\
musictf: contrastive pretraining of light music transformers, and linear probes of what emerges in them

usage: musictf VERB [key=value ...]

{verbs}

examples:
  musictf demo
  musictf pretrain dataset=folder dataset.root=~/music max_steps=2000
  musictf probe backbone=runs/demo/pretrain task=chord
  musictf inspect backbone=runs/demo/pretrain
  musictf report runs

musictf VERB --help lists the keys of each. Keys are Hydra overrides; -m before them sweeps over comma lists. Names of
files and folders are taken as they stand. The shell needs quotes around blanks, brackets and other special characters:
'dataset.root=my music' 'layers=[0,4]'.
"""

_SWEEP = """\
sweeps (-m):
  Every combination of the comma lists is a job, each in a folder of its own below output_dir (default
  runs/{verb}/sweep-TIME), and sweep.json there lists them. The same command with the same output_dir continues:
  finished jobs are left alone, unfinished ones continue, and longer lists add jobs. musictf report FOLDER lists the
  jobs that are missing; with --missing it prints the commands for them.
  dry_run=true                 only print the jobs and, for SLURM, the parameters that sbatch will get
  hydra/launcher=slurm         send the jobs to SLURM (pip install musictf[slurm]); start the sweep where sbatch is.
                               Devices and nodes follow trainer.*; hydra.launcher.timeout_min=60 (minutes)
                               hydra.launcher.partition=  hydra.launcher.cpus_per_task=  hydra.launcher.mem_gb=
  Without SLURM the jobs run one after another, as single processes.
"""


def overview() -> str:
    """The help of the command without a verb."""
    return _OVERVIEW.replace("{verbs}", "\n".join(f"  {verb:<10} {summary}" for verb, summary in VERBS.items()))


@dataclass(frozen=True)
class RunHelp:
    """The help of a verb whose keys are the fields of a dataclass.

    Attributes:
        verb: The verb.
        run_class: Module and name of the dataclass.
        usage: The line after ``usage:``.
        text: What the verb does, with a line end.
        groups: Configuration groups whose choices are listed.
        examples: Commands, one a line.
    """

    verb: str
    run_class: tuple[str, str]
    usage: str
    text: str
    groups: tuple[str, ...]
    examples: str

    def render(self, arguments: Sequence[str] = ()) -> str:
        """The help, with the keys that the choices among the arguments have."""
        choices = f"choices:\n{choices_text(self.groups)}\n\n" if self.groups else ""
        sweep = f"{_SWEEP.replace('{verb}', self.verb)}\n" if self.groups else ""
        sections = []
        for title, keys in self._sections(arguments):
            lines = [line for key, entry in keys.items() for line in _key_lines(key, *entry)]
            sections.append("\n".join([f"{title}:", *lines, ""]))
        keys_text = "\n".join(sections)
        return f"usage: {self.usage}\n\n{self.text}\n{choices}{keys_text}\n{sweep}examples:\n{self.examples}"

    def keys(self, arguments: Sequence[str] = ()) -> dict[str, tuple[Any, str]]:
        """Default and clause of every key, by its full name; a default is `REQUIRED` where there is none."""
        return {key: entry for section in self._sections(arguments) for key, entry in section[1].items()}

    def _sections(self, arguments: Sequence[str]) -> Iterator[tuple[str, dict[str, tuple[Any, str]]]]:
        """Title and keys of each section: the run's own keys, then one section for each nested dataclass."""
        choices = self._choices(arguments)
        fields = {name: f for name, f in SourceClass(*self.run_class).fields().items() if name != _NOT_A_KEY}
        run_fields = {
            name: f for name, f in fields.items() if not isinstance(f.default, SourceClass) and name not in choices
        }
        yield "keys (default)", {name: (f.default, f.clause) for name, f in run_fields.items()}
        for name, outer in fields.items():
            if name in run_fields:
                continue
            schema, chosen = outer.default, f"{name}.*"
            values: Mapping[str, Any] = {}
            if name in choices:
                schema, values = _choice(name, choices[name] or _SHOWN_CHOICE[name], schema)
                chosen = f"{name}={choices[name] or 'null'}"
                chosen += "" if choices[name] else f"; with {name}={_SHOWN_CHOICE[name]}"
            yield f"{chosen} ({schema.summary})", dict(_flat(schema, f"{name}.", values))

    def _choices(self, arguments: Sequence[str]) -> dict[str, str | None]:
        """The choice of each group: those of ``conf/VERB.yaml``, and of ``group=choice`` arguments."""
        path = conf_folder() / f"{self.verb}.yaml"
        defaults = yaml.safe_load(path.read_text(encoding="utf-8"))["defaults"] if path.is_file() else []
        # Entries without a value are schemas and _self_.
        choices = {group: name for entry in defaults if isinstance(entry, dict) for group, name in entry.items()}
        given = {key: value for key, _, value in (argument.partition("=") for argument in arguments)}
        known = groups()
        return choices | {group: name for group, name in given.items() if name in known.get(group, [])}


def _choice(group: str, name: str, annotated: Any) -> tuple[SourceClass, Mapping[str, Any]]:
    """The dataclass of a group's choice, and the values that its file sets."""
    path = conf_folder() / group / f"{name}.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    # The defaults list of such a file names the dataclass, as `config.register` stores it; without a file the class
    # itself has the name of the choice.
    (schema,) = values.pop("defaults", [None])
    return find_class(_SUBCLASSES[group], name, schema) if group in _SUBCLASSES else annotated, values


def _flat(schema: SourceClass, prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Any, str]]]:
    """Every key below a section, with its default and clause."""
    for name, field in schema.fields().items():
        default = values.get(name, field.default)
        if isinstance(default, SourceClass):
            yield from _flat(default, f"{prefix}{name}.", {})
        elif isinstance(default, dict):  # one key for each entry; all share the clause
            for key, value in default.items():
                yield f"{prefix}{name}.{key}", (value, field.clause)
        else:
            yield f"{prefix}{name}", (default, field.clause)


def _key_lines(key: str, default: Any, clause: str) -> Iterator[str]:
    """``  key=default   clause``, wrapped to several lines where needed."""
    head = f"  {key}=" + ("" if default is REQUIRED else value_text(default))
    clause = f"required: {clause}" if default is REQUIRED else clause
    wrapped = textwrap.wrap(clause, _WIDTH - _CLAUSE_COLUMN) or [""]
    # A long default has a line of its own.
    if len(head) < _CLAUSE_COLUMN - 1:
        head = f"{head:<{_CLAUSE_COLUMN}}{wrapped.pop(0)}"
    yield head.rstrip()
    yield from (f"{'':<{_CLAUSE_COLUMN}}{line}" for line in wrapped if line)


def value_text(value: Any) -> str:
    """A value as it is written after ``key=``."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(value_text, value))}]"
    return str(value)


def choices_text(names: Sequence[str]) -> str:
    """``  group=a|b|c`` for each group, wrapped to several lines where needed."""
    known, lines = groups(), []
    for group in (name for name in names if name in known):
        indent = " " * (len(group) + 3)
        # Wrapped at blanks, which are taken out again.
        text = "| ".join(known[group])
        wrapped = textwrap.wrap(text, _WIDTH, initial_indent=f"  {group}=", subsequent_indent=indent)
        lines += [line[: len(indent)] + line[len(indent) :].replace(" ", "") for line in wrapped]
    return "\n".join(lines)
