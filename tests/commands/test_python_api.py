"""The commands from Python: the same files as from the command line, and the same notices."""

from __future__ import annotations

import csv
import importlib
import json
import re
from pathlib import Path

import pytest
import torch
import yaml

import musictf

SMALL = {"dataset": "synthetic", "dataset.num_tracks": 20, "dataset.seconds": 12}
ENGINE = {"wandb": {"mode": "disabled"}, "trainer": {"accelerator": "cpu", "enable_progress_bar": False}}
PRETRAIN = {"max_steps": 2, "batch_size": 4, "num_workers": 0, "model": {"depth": 1, "embed_dim": 16, "num_heads": 2}}
PROBE = {"task": "tagging", "seeds": [0], "layers": [0], "baselines": ["majority"], "probe": {"steps": 4}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a backbone and a probe of it, made from Python under names that need quotes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("it's a, b=c"))
        trained = musictf.pretrain("dataset=synthetic", output_dir="my (first) run", **SMALL, **ENGINE, **PRETRAIN)
        musictf.probe(backbone=trained.backbone.parent, output_dir="probe #1", **SMALL, **ENGINE, **PROBE)
        yield Path.cwd()


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)


def command_line(verb, keys):
    """The same keys as a user types them, who quotes for the shell only."""
    flat = {}
    for key, value in keys.items():
        flat |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    texts = {key: json.dumps(v) if isinstance(v, bool) else str(v).replace("'", "") for key, v in flat.items()}
    return [verb, *(f"{key}={value}" for key, value in texts.items())]


def contents(folder, run):
    """Every file of a run folder, without times and without the name of the folder."""
    files = {}
    for path in sorted(path for path in (folder / run).rglob("*") if path.is_file()):
        name = str(path.relative_to(folder / run))
        if path.suffix in {".png", ".svg", ".ckpt", ".safetensors", ".npz"} or name.startswith("heads/"):
            files[name] = path.stat().st_size > 0
        elif path.suffix == ".jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            files[name] = [{k: v for k, v in row.items() if k not in {"time", "seconds", "run"}} for row in rows]
        elif name == "metrics.csv":
            rows = list(csv.DictReader(path.read_text().splitlines()))
            files[name] = [{k: v for k, v in row.items() if "loss" in k or k == "step"} for row in rows]
        elif name == "status.json":
            files[name] = {k: v for k, v in json.loads(path.read_text()).items() if k != "time"}
        elif name == "config.yaml":
            files[name] = {k: v for k, v in yaml.safe_load(path.read_text()).items() if k != "output_dir"}
        else:
            files[name] = path.read_bytes()
    return files


@pytest.mark.slow
def test_a_probe_from_python_gives_the_files_of_the_command(folder, forked):
    keys = {"backbone": "my (first) run", "output_dir": "a, typed"} | SMALL | ENGINE | PROBE
    done = forked(command_line("probe", keys), folder)
    assert done.wait() == 0, done.stderr
    typed, called = contents(folder, "a, typed"), contents(folder, "probe #1")
    assert typed["results.jsonl"]
    assert typed == called


@pytest.mark.slow
def test_a_pretraining_from_python_gives_the_files_of_the_command(folder, forked):
    done = forked(command_line("pretrain", {"output_dir": "typed"} | SMALL | ENGINE | PRETRAIN), folder)
    assert done.wait() == 0, done.stderr
    assert contents(folder, "typed") == contents(folder, "my (first) run")
    backbones = [musictf.load_backbone(folder / name / "backbone.safetensors") for name in ("typed", "my (first) run")]
    first, second = (backbone.state_dict() for backbone in backbones)
    assert first.keys() == second.keys()
    # The command ran in a process of its own: sums over another number of threads differ in their last bits.
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=1e-5)


def test_a_finished_run_is_returned_with_the_notice_of_the_command(folder, capsys):
    status = (folder / "probe #1" / "status.json").read_bytes()
    result = musictf.probe("backbone=my (first) run", output_dir="probe #1", **SMALL, **ENGINE, **PROBE)
    assert (
        capsys.readouterr().out == "probe #1 is finished already; nothing was changed (overwrite=true starts afresh)\n"
    )
    assert result.folder == Path("probe #1")
    assert {row["backbone"]["kind"] for row in result.rows} == {"pretrained", "majority"}
    assert (folder / "probe #1" / "status.json").read_bytes() == status


def test_a_pretraining_has_a_backbone_and_no_rows():
    result = musictf.pretrain(output_dir="my (first) run", **SMALL, **ENGINE, **PRETRAIN)
    assert result.rows == []
    assert result.backbone == Path("my (first) run/backbone.safetensors")
    assert musictf.load_backbone(result.backbone).encoder.config.depth == 1
    with pytest.raises(AttributeError, match="only pretraining writes one"):
        musictf.RunResult(Path("probe #1"), []).backbone  # noqa: B018


def test_a_report_returns_rows_and_text_and_prints_nothing(capsys):
    report = musictf.report("probe #1", format="md")
    assert "tagging on synthetic" in report.text
    assert {row["task"] for row in report.rows} == {"tagging"}
    musictf.report(["probe #1"], output="page of it.html")
    assert Path("page of it.html").is_file()
    assert capsys.readouterr().out == ""
    importlib.import_module("musictf.reporting.figures")  # the package of the same name is still one
    assert musictf.reporting.figures.__name__ == "musictf.reporting.figures"
    assert musictf.report(Path("probe #1")).text.count("majority")


@pytest.mark.parametrize(
    ("verb", "overrides", "keys", "message"),
    [
        ("probe", [], {}, "probe needs backbone="),
        ("probe", ["-m"], {"backbone": "mel"}, "'-m' is not key=value"),
        ("probe", ["backbone=mel"], {"sedes": [0]}, "did you mean 'seeds'"),
        ("probe", ["backbone=mel"], {"seeds": {0}}, "seeds={0}: a value of type set cannot be used"),
        ("inspect", [], SMALL | {"backbone": "no such, folder"}, "no such, folder"),
        ("pretrain", ["dataset=folder"], {"dataset.root": "no 'such' folder"}, "no 'such' folder is not a folder"),
        ("report", ["no such folder"], {}, "no such folder"),
    ],
)
def test_wrong_input_is_an_input_error(verb, overrides, keys, message):
    with pytest.raises(musictf.InputError, match=re.escape(message)):
        getattr(musictf, verb)(*overrides, **keys)


def test_a_run_that_diverges_is_a_failed_run(tmp_path):
    broken = {"optim.learning_rate": 1e30, "log_every": 1, "output_dir": tmp_path / "run"}
    with pytest.raises(musictf.FailedRun, match=r"guard\.budget=0"):
        musictf.pretrain(**SMALL, **ENGINE, **(PRETRAIN | broken | {"max_steps": 5}))


def test_the_public_names_are_there_and_nothing_else():
    assert all(getattr(musictf, name) for name in musictf.__all__)
    with pytest.raises(AttributeError, match="no attribute 'train'"):
        _ = musictf.train
