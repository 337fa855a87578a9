"""The help is read from the source of the dataclasses: every key of a run is in it, with its true default."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from musictf.commands import VERBS, demo, inspect, pretrain, probe
from musictf.commands.help import choices_text, overview
from musictf.commands.keys import REQUIRED, SourceClass
from musictf.config import compose, groups

ROOT = Path(__file__).parents[2]
HELPS = {"pretrain": pretrain.HELP, "probe": probe.HELP, "inspect": inspect.HELP}


def leaves(values, prefix=""):
    """Every key below a mapping, with its value."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def composed(verb, arguments=()):
    run = compose(verb, [*arguments, *(["backbone=mel"] if verb != "pretrain" else [])])
    return {key: value for key, value in leaves(dataclasses.asdict(run)) if not key.startswith("choices.")}


@pytest.mark.parametrize(
    ("verb", "choices"),
    [
        ("pretrain", ["online_probe=synthetic"]),
        ("pretrain", ["online_probe=manifest", "online_probe.root=x", "model=vit1d_tiny", "augment=strong"]),
        ("pretrain", ["dataset=manifest", "trainer=fsdp"]),
        ("probe", []),
        ("probe", ["task=onset", "dataset=folder", "trainer=gpu"]),
        ("inspect", []),
        ("inspect", ["model=vit1d_small"]),
    ],
)
def test_every_key_of_a_run_is_in_the_help_with_its_true_default(verb, choices):
    # What the command line sets is no default; what a group that is off would have is not in the run.
    left_out = {"backbone"} | {choice.partition("=")[0] for choice in choices} | {"online_probe"}
    is_probed_online = any(choice.startswith("online_probe=") for choice in choices)
    run = {key: value for key, value in composed(verb, choices).items() if key not in left_out}
    defaults = {key: default for key, (default, _) in HELPS[verb].keys(choices).items() if key not in left_out}
    assert {key: defaults[key] for key in defaults if is_probed_online or "online_probe." not in key} == run
    text = HELPS[verb].render(choices).partition("\nsweeps")[0]
    for key, value in run.items():
        (printed,) = re.findall(rf"^  {re.escape(key)}=(.*?)(?:  .*)?$", text, flags=re.MULTILINE)
        assert yaml.safe_load(printed) == value


def test_what_has_no_default_is_required():
    assert [key for key, (default, _) in probe.HELP.keys().items() if default is REQUIRED] == ["backbone"]
    assert "required: Backbone file, run folder" in probe.help_text()


def test_every_default_is_what_the_demo_takes():
    defaults = {key: default for key, (default, _) in demo.HELP.keys().items()}
    assert defaults == dict(leaves(dataclasses.asdict(demo.DemoRun())))


@pytest.mark.parametrize("help_of_verb", [*HELPS.values(), demo.HELP], ids=[*HELPS, "demo"])
def test_every_key_has_a_clause_and_every_line_of_keys_fits(help_of_verb):
    assert [key for key, (_, clause) in help_of_verb.keys().items() if not clause] == []
    text = help_of_verb.render()
    keys = text[text.index("keys (default)") :].partition("\nsweeps")[0].partition("\nexamples")[0]
    assert [line for line in keys.splitlines() if len(line) > 100] == []


def test_choices_and_verbs_are_those_there_are():
    names = re.sub(r"\s", "", choices_text(("dataset", "task"))).replace("task=", "|").replace("dataset=", "")
    assert names.split("|") == [*groups()["dataset"], *groups()["task"]]
    assert all(re.search(rf"^  {verb} ", overview(), flags=re.MULTILINE) for verb in VERBS)


def test_a_clause_is_the_first_sentence_of_its_entry_or_the_comment_of_its_line():
    fields = SourceClass("musictf.commands.demo", "DemoRun").fields()
    assert fields["seeds"].clause == "Seeds of the probes; musictf probe takes three"
    assert SourceClass("musictf.tasks.chord", "ChordTask").fields()["mean_seconds"].clause


@pytest.mark.parametrize("verb", [*VERBS, ""])
def test_help_answers_at_once(verb):
    """Processor time, which other processes of the machine do not add to."""
    code = (
        "import sys, time; from musictf.cli import main; main(sys.argv[1:])\n"
        "print(time.process_time(), *{'torch', 'hydra', 'numpy', 'rich'} & set(sys.modules), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *([verb] if verb else []), "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    seconds, *heavy = done.stderr.split()
    assert heavy == []
    assert float(seconds) < 1  # 0.25 on an idle machine; torch alone takes more than 1


def test_a_misspelt_verb_imports_nothing():
    code = (
        "import sys; from musictf.cli import main\n"
        "try: main(['prbe'])\nexcept SystemExit as stop: print(stop.code)\n"
        "print(sorted(name for name in sys.modules if name.startswith('musictf')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "musictf prbe: unknown verb 'prbe', did you mean 'probe'?\n"
    loaded = ["musictf", "musictf.cli", "musictf.commands", "musictf.distributed", "musictf.errors"]
    assert done.stdout.splitlines() == ["2", str(loaded)]
