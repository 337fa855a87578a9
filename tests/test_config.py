"""Every choice composes and builds, a file of ``conf/`` or a class; every wrong key is one line that names it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import musictf.tasks
from musictf.config import compose, conf_folder, groups, subclasses
from musictf.errors import InputError
from musictf.tasks.base import Task

EXPERIMENTS = sorted(file.stem for file in (conf_folder() / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_builds(name):
    assert compose("pretrain", [f"experiment={name}"]).choices["experiment"] == name


@pytest.mark.parametrize(
    ("verb", "group", "name"),
    [
        (verb, group, name)
        for verb, shown in {"pretrain": ("model", "objective", "dataset", "trainer"), "probe": ("task",)}.items()
        for group in shown
        for name in groups()[group]
    ],
)
def test_every_choice_of_every_group_composes(verb, group, name):
    backbone = ["backbone=random"] if verb == "probe" else []
    assert compose(verb, [f"{group}={name}", *backbone]).choices[group] == name


def test_the_tasks_found_in_the_source_are_the_classes_and_the_files_of_conf():
    classes = {cls.name for cls in subclasses(musictf.tasks, Task)}
    assert classes & {file.stem for file in (conf_folder() / "task").glob("*.yaml")} == set()
    assert set(groups()["task"]) == classes | {"genre", "instrument"}
    assert all(groups()["task"].values())


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["max_stpes=3"], "unknown key 'max_stpes', did you mean 'max_steps'?"),
        (["taks=chord"], "did you mean"),
        (["model.dept=3"], "did you mean 'model.depth'?"),
        (["dataset.root=x"], "unknown key 'dataset.root': choose dataset=... first, one of .*folder"),
        (["augment=true"], "augment=true is not a choice: one of mild, none, strong"),
        (["trainer=1"], "trainer=1 is not a choice: one of auto, cpu"),
        (["dataset=manifest", "dataset.rot=x"], "did you mean 'dataset.root'?"),
        (["max_steps=abc"], "max_steps.*abc"),
        (["model=vit9d"], "model=vit9d is not a choice: one of vit1d_mini"),
        (["dataset=gtzam"], "dataset=gtzam is not a choice: one of asap, ballroom"),
        (["experiment=none_such"], "experiment=none_such is not a choice"),
        (["trainer.devices=[1"], "cannot read 'trainer.devices=.1' as key=value"),
        (["foo"], "'foo' is not key=value"),
        (["+new=1"], "is not key=value"),
        (["batch_size=1"], "batch_size=1: a contrast needs at least 2 pairs"),
        (["model.num_heads=5"], "not a multiple"),
        (["splits=[train,tset]"], "tset unknown"),
        (["wandb.mode=maybe"], "wandb.mode='maybe' is unknown"),
    ],
)
def test_wrong_input_is_one_line_that_names_the_key(overrides, said):
    with pytest.raises(InputError) as caught:
        compose("pretrain", overrides)
    assert re.search(said.replace("?", "[?]"), str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_probe_without_a_backbone_says_so():
    with pytest.raises(InputError, match="probe needs backbone="):
        compose("probe", ["task=chord"])


def test_configuration_names_values_never_classes():
    text = "".join(path.read_text() for path in conf_folder().rglob("*.yaml"))
    assert "_target_" not in text
    # The plain recipe states every value with its source, and nothing else does.
    short = (path for path in conf_folder().rglob("*.yaml") if path.stem != "emergent")
    assert all(len(path.read_text().splitlines()) <= 20 for path in short)


def test_importing_the_package_starts_nothing():
    code = (
        "import sys, musictf, musictf.config, musictf.commands.help;"
        "print(sorted({'torch', 'hydra', 'lightning'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert answer.stdout.strip() == "[]", answer.stdout + answer.stderr
