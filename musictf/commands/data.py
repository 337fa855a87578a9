"""``musictf data``: check, prepare and pack corpora; list, verify and prune the feature store."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from musictf.commands.help import choices_text
from musictf.errors import InputError

_TEXT = """\
usage: musictf data check [key=value ...]
       musictf data prepare [CORPUS [ROOT]] [key=value ...]
       musictf data pack [key=value ...] output=FOLDER
       musictf data features list|verify|prune

check decodes every file of a corpus and reads every annotation. It counts tracks and annotations of each split and
lists bad files with the reason. It warns about duplicate recordings, groups in several splits, near silence and very
short files. Exit status 2 if anything is bad, 0 if the bad tracks were written to a file.
  output=FILE     write the bad tracks, with the reasons, in the format that dataset.exclusions=FILE reads
  task=NAME       also count the tracks of each split that this task can use

prepare compares a local copy of a published corpus with what its authors publish: counts, missing files, files that do
not open, and the commands to run next. It never downloads. Without ROOT it prints where to obtain the corpus and the
expected layout; without CORPUS it lists all corpora. Exit status 2 if the copy is absent or incomplete.
  full=true       decode every file instead of reading its header
  KEY=VALUE       keys of dataset.*: variant=..., split=...

pack decodes a corpus once, to 16-bit samples at one rate in a few large files, with levels, labels, annotations and a
list of contents. dataset=packed then reads random excerpts without decoding and without the original audio. The same
command continues a pack that was killed. Files that do not decode are listed, and then no pack is made.
  output=FOLDER   where (overwrite=true replaces a pack)
  sample_rate=HZ  default: that of the front end (front_end.sample_rate)
  splits=[...]    default: all   shard_gb=1: largest size of a shard in GB
  format=litdata  for object storage (pip install musictf[shards]): copy FOLDER/chunks there, keep the rest of FOLDER,
                  and add dataset.url=s3://bucket/folder
  root=FOLDER verify=true   compare all samples of a pack with their digests

features lists what the feature store holds; verify reads it all and compares checksums; prune deletes, followed by one
of NAME (as list prints it), unused_days=N, stale, broken, all. Deleted features are computed again when needed.

choices:
{choices}

examples:
  musictf data check dataset=folder dataset.root=~/music
  musictf data check dataset=manifest dataset.root=corpora/a task=chord output=bad.txt
  musictf probe backbone=runs/mine task=chord dataset=manifest dataset.root=corpora/a dataset.exclusions=bad.txt
  musictf data prepare
  musictf data prepare gtzan
  musictf data prepare gtzan ~/data/gtzan full=true
  musictf data pack dataset=manifest dataset.root=corpora/a output=packs/a
  musictf pretrain dataset=packed dataset.root=packs/a
  musictf data pack root=packs/a verify=true
  musictf data features prune unused_days=30
"""


def help_text(arguments: Sequence[str] = ()) -> str:
    """The help of the verb, with the corpora and tasks there are."""
    return _TEXT.replace("{choices}", choices_text(("dataset", "task")))


def main(arguments: Sequence[str]) -> None:
    """Run the command with the arguments that follow the verb.

    Raises:
        InputError: The action is unknown, or its arguments or data cannot be used.
    """
    actions: dict[str, Callable[[Sequence[str]], None]] = {
        "check": check,
        "prepare": prepare,
        "pack": pack,
        "features": features,
    }
    action, *rest = arguments or [""]
    if action not in actions:
        near = difflib.get_close_matches(action, actions, n=1)
        hint = f"did you mean data {near[0]}?" if near else f"data {' or data '.join(actions)} (musictf data --help)"
        raise InputError(f"{f'data {action} is unknown: ' if action else ''}{hint}")
    actions[action](rest)


def check(arguments: Sequence[str]) -> None:
    """``musictf data check``: decode a corpus and read its annotations."""
    from musictf.config import compose
    from musictf.datasets.corpus_check import check as check_corpus

    options, keys = _split_options(arguments, {"output"})
    if not any(key.partition("=")[0].split(".")[0] == "task" for key in keys):
        check_corpus(compose("pretrain", keys).dataset, output=options.get("output"))
        return
    # A probe has a task; its backbone is required and not used.
    run = compose("probe", ["backbone=mel", *keys])
    check_corpus(run.dataset, run.task, options.get("output"))


def prepare(arguments: Sequence[str]) -> None:
    """``musictf data prepare``: compare a local copy of a corpus with what is published.

    Raises:
        InputError: The corpus is unknown, or the copy is absent or incomplete.
    """
    import musictf.tasks
    from musictf.config import compose, dataset_classes, subclasses
    from musictf.datasets import prepare as corpora
    from musictf.datasets.base import Dataset
    from musictf.tasks.base import Task

    known = {cls.name: cls for cls in dataset_classes() if issubclass(cls, Dataset)}
    tasks = [cls() for cls in subclasses(musictf.tasks, Task)]
    options, rest = _split_options(arguments, {"full"})
    if not rest:
        corpora.list_corpora(known, tasks)
        return
    corpus, *rest = rest
    if corpus not in known:
        near = difflib.get_close_matches(corpus, known, n=1, cutoff=0.5)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise InputError(f"corpus {corpus!r} is unknown{hint}: one of {', '.join(sorted(known))}")
    root = [f"dataset.root={Path(rest.pop(0)).expanduser()}"] if rest and "=" not in rest[0] else []
    keys = [f"dataset={corpus}", *root, *(key if key.startswith("dataset.") else f"dataset.{key}" for key in rest)]
    full = _flag(options, "full")
    corpora.describe(known[corpus])
    corpora.prepare(compose("pretrain", keys).dataset, keys, tasks, full)


def pack(arguments: Sequence[str]) -> None:
    """``musictf data pack``: decode a corpus once, or verify a pack.

    Raises:
        InputError: An argument is missing or wrong, a file cannot be decoded, or a pack is damaged.
    """
    from musictf.config import compose
    from musictf.packing import make_pack as packing

    options, keys = _split_options(arguments, {"root", "verify", "output", *packing.pack_keys()})
    if _flag(options, "verify"):
        if set(options) != {"root", "verify"} or keys:
            raise InputError("musictf data pack root=FOLDER verify=true takes no other keys")
        print(f"{options['root']}: {packing.verify(options['root'])} recordings are what was packed")
        return
    if "root" in options or not options.get("output"):
        raise InputError("musictf data pack dataset=... dataset.root=ROOT output=FOLDER (or root=FOLDER verify=true)")
    output = options.pop("output")
    run = compose("pretrain", keys)
    folder = packing.pack(run.dataset, output, **packing.pack_keys(options, run.front_end.sample_rate))
    print(packing.summary(folder))
    print(f"next: {shlex.join(['musictf', 'pretrain', 'dataset=packed', f'dataset.root={folder}'])}")


def features(arguments: Sequence[str]) -> None:
    """``musictf data features``: list, verify or prune the feature store."""
    from musictf.features.inventory import features as manage_features

    manage_features(arguments)


def _split_options(arguments: Sequence[str], names: set[str]) -> tuple[dict[str, str], list[str]]:
    """Options of the command itself, by name with ``~`` expanded; and the keys of a run, which are all others."""
    parts = {argument: argument.partition("=") for argument in arguments}
    options = {key: value for key, _, value in parts.values() if key in names}
    # The shell leaves ~ alone after a name and =.
    options = {key: str(Path(value).expanduser()) if value[:2] == "~/" else value for key, value in options.items()}
    return options, [argument for argument in arguments if parts[argument][0] not in names]


def _flag(options: dict[str, str], name: str) -> bool:
    value = options.get(name, "false")
    if value not in {"true", "false"}:
        raise InputError(f"{name}={value}: true or false")
    return value == "true"
