"""Every choice composes and builds, a file of ``conf/`` or a class; every wrong key is one line that names it."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import musictf.tasks
from musictf.config import compose, conf_folder, groups, literal_paths, python_overrides, subclasses
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
        (["batch_size=1"], "batch_size=1: a contrastive loss needs at least 2 pairs"),
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


NAMES = [
    "Guns N' Roses",
    "AC&DC",
    "Greatest Hits (1998)",
    "#1",
    "[1999]",
    "lr=0.1,seed=1",
    "a, b",
    "1999",
    "true",
    " blank ",
    "[a",
    'the "best" of',
    "back\\slash\\",
    "it\\'s",
    "choice(a,b)",
    "{x: 1}",
    "50%",
    "Noël: où?",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_folders_are_taken_as_they_stand(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    run = compose("pretrain", ["dataset=folder", f"dataset.root={name}", f"output_dir={name}"])
    assert (run.dataset.root, run.output_dir) == (name, name)
    run = compose("pretrain", ["dataset=folder", f"dataset.root={tmp_path / name}"])
    assert run.dataset.root == str(tmp_path / name)
    run = compose("probe", [f"backbone={name}", f"like={name}", f"dataset.exclusions={name}"])
    assert (run.backbone, run.like, run.dataset.exclusions) == (name, name, name)


@pytest.mark.parametrize("name", [*NAMES, "${oc.env:HOME}", "\\${x}", "'quoted'", "null", "${", ""])
def test_python_values_hold_any_text(name):
    texts = {"backbone": name, "wandb": {"group": name}, "dataset.exclusions": name, "like": None}
    run = compose("probe", python_overrides({**texts, "seeds": (3,), "baselines": ["mel"], "allow_missing": True}))
    assert (run.backbone, run.wandb.group, run.dataset.exclusions, run.like) == (name, name, name, None)
    assert (run.seeds, run.baselines, run.allow_missing) == ([3], ["mel"], True)


def test_python_values_of_numbers_paths_and_sections(tmp_path):
    keys = {"backbone": tmp_path / "a b", "probe": {"steps": np.int64(7), "learning_rates": [np.float32(0.5), 1e-4]}}
    run = compose("probe", python_overrides({**keys, "task": "chord", "robustness": {"amounts": {"gain": [3]}}}))
    assert run.backbone == str(tmp_path / "a b")
    assert (run.probe.steps, run.probe.learning_rates, run.robustness.amounts["gain"]) == (7, [0.5, 1e-4], [3.0])
    with pytest.raises(InputError, match="seeds=.*set cannot be used"):
        python_overrides({"seeds": {1, 2}})


def test_the_home_folder_is_expanded_where_the_shell_leaves_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "my home"))
    run = compose("pretrain", ["dataset=folder", "dataset.root=~/music", "output_dir=~/runs/a", "resume=~/b, c.ckpt"])
    home = f"{tmp_path}/my home"
    assert (run.dataset.root, run.output_dir, run.resume) == (f"{home}/music", f"{home}/runs/a", f"{home}/b, c.ckpt")
    run = compose("probe", ["backbone=~/a", "like=~", "dataset=manifest", "dataset.root=[~/a,b]"])
    assert (run.backbone, run.like, run.dataset.root) == (f"{home}/a", home, [f"{home}/a", "b"])
    assert compose("probe", python_overrides({"backbone": "~/a"})).backbone == f"{home}/a"
    assert compose("pretrain", ["wandb.group='~/x'"]).wandb.group == "~/x"


@pytest.mark.parametrize(
    ("override", "sweeping", "expected"),
    [
        ("dataset.root=[corpora/a,my music]", False, "dataset.root=[corpora/a,my music]"),
        ("dataset.root=[a (1),'b, c',#1]", False, "dataset.root=['a (1)','b, c','#1']"),
        ("estimates=[runs/a, runs/b=1]", False, "estimates=[runs/a,'runs/b=1']"),
        ("backbone=[1999]", False, "backbone='[1999]'"),
        ("backbone=a,b", False, "backbone='a,b'"),
        ("backbone=a,b", True, "backbone=a,b"),
        ("backbone=a,random", True, "backbone=a,random"),
        ("backbone=Guns N' Roses,Rock 'n' Roll", True, r"backbone='Guns N\' Roses','Rock \'n\' Roll'"),
        ("backbone='a, b',c (1)", True, "backbone='a, b','c (1)'"),
        ("backbone=choice(a,b)", True, "backbone=choice(a,b)"),
        ("dataset.root=[a,b],[c]", True, "dataset.root=[a,b],[c]"),
        ("dataset.root='/my music, old'", False, "dataset.root='/my music, old'"),
        ("output_dir=null", False, "output_dir=null"),
        ("output_dir=runs/${now:%Y}", False, "output_dir=runs/${now:%Y}"),
        ("dataset.train_root=a,b", False, "dataset.train_root='a,b'"),
        ("layers=[0,4]", False, "layers=[0,4]"),
        ("max_steps=2,3", True, "max_steps=2,3"),
        ("backbone", False, "backbone"),
    ],
)
def test_only_names_that_hydra_would_read_as_something_else_are_quoted(override, sweeping, expected):
    assert literal_paths([override], sweeping) == [expected]


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


@pytest.mark.parametrize(
    ("verb", "override"),
    [
        ("probe", "readouts=[class,class]"),
        ("probe", "baselines=[random,random]"),
        ("inspect", "parts=[position,position]"),
        ("inspect", "controls=[noise,noise]"),
    ],
)
def test_a_name_given_twice_is_refused(verb, override):
    with pytest.raises(InputError, match="give each once"):
        compose(verb, ["backbone=random", override])
