"""The commands as a user types them: what they print, where they write, how they end."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mir_eval
import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[1]
SMALL = ["dataset.num_tracks=20", "dataset.seconds=12", "wandb.mode=disabled", "trainer.accelerator=cpu"]
TINY = ["model.depth=1", "model.embed_dim=16", "model.num_heads=2", "num_workers=0"]


def musictf(*arguments, cwd, env=None, module_path=ROOT):
    environment = os.environ | {"PYTHONPATH": str(module_path), "OMP_NUM_THREADS": "1"} | (env or {})
    command = [sys.executable, "-m", "musictf", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=400)


@pytest.fixture
def quick(forked, tmp_path):
    """The same without the time that imports take: ends, prints and writes as the command does."""

    def quick(*arguments, cwd=tmp_path):
        done = forked(arguments, cwd)
        done.wait()
        return done

    return quick


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A tiny backbone, pretrained by the command."""
    folder = tmp_path_factory.mktemp("cli")
    steps = ["max_steps=4", "batch_size=4", "valid_every=2", "output_dir=run"]
    done = musictf("pretrain", *SMALL, *TINY, *steps, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


VERBS = ("demo", "pretrain", "probe", "inspect", "report", "data")


@pytest.mark.parametrize("arguments", [["--help"], *([verb, "--help"] for verb in VERBS)])
def test_help_answers_without_importing_torch(arguments):
    code = (
        "import sys; from musictf.cli import main\n"
        "try:\n main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "musictf" in done.stdout
    assert "example" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pretain"], "unknown verb 'pretain', did you mean 'pretrain'?"),
        (["pretrain", "max_stpes=3"], "did you mean 'max_steps'?"),
        (["pretrain", "dataset=folder", "dataset.root=/no/such/folder"], "/no/such/folder is not a folder"),
        (["probe", "backbone=/no/such/file"], "does not exist"),
        (["report", "no_such_folder"], "no_such_folder"),
        (["demo", "max_stepz=1"], "max_stepz"),
        (["data"], "data check"),
        (["pretrain", "trainer.accumulate_grad_batches=4"], "accumulated gradients add no negatives"),
        (["pretrain", "micro_batch=0"], "micro_batch=0"),
        (["pretrain", "augment.polarity=2"], "augment.polarity=2"),
        (["pretrain", "online_probe=synthetic", "online_probe.every=0"], "online_probe.every=0"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(arguments, said, quick, tmp_path):
    done = quick(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not list(tmp_path.iterdir()), "something was started"


def test_pretrain_writes_its_run_folder(pretrained):
    names = {path.name for path in pretrained.iterdir()}
    assert {"backbone.safetensors", "metrics.csv", "checkpoints", "config.yaml", "status.json"} <= names
    assert json.loads((pretrained / "status.json").read_text())["status"] == "finished"


def test_a_finished_run_is_left_alone(pretrained, quick):
    before = (pretrained / "backbone.safetensors").read_bytes()
    steps = ["max_steps=4", "batch_size=4", "valid_every=2", "output_dir=run"]
    done = quick("pretrain", *SMALL, *TINY, *steps, cwd=pretrained.parent)
    assert done.returncode == 0
    assert "finished already" in done.stdout
    assert (pretrained / "backbone.safetensors").read_bytes() == before


def test_any_folder_of_mixed_audio_pretrains(tmp_path, quick):
    generator = np.random.default_rng(0)
    for name, rate, channels in (("a.wav", 44100, 2), ("b.flac", 22050, 1), ("c.ogg", 48000, 2), ("d.mp3", 32000, 1)):
        soundfile.write(tmp_path / name, 0.1 * generator.standard_normal((12 * rate, channels)), rate)
    data = ["dataset=folder", f"dataset.root={tmp_path}", "wandb.mode=disabled", "trainer=cpu"]
    done = quick("pretrain", *data, *TINY, "max_steps=2", "batch_size=2", "output_dir=run")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "backbone.safetensors").is_file()


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path, quick):
    steps = ["max_steps=5000", "batch_size=4", "dry_run=true"]
    done = quick("pretrain", *SMALL, *TINY, *steps, "trainer.enable_progress_bar=false")
    assert done.returncode == 0, done.stderr
    for words in ("4 pairs a step: 1 x 4", "6 a view", "measured on", "expected", "without dry_run=true"):
        assert words in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_packed_corpus_is_pretrained_on_in_parts_and_watched(tmp_path, quick):
    """Pack, pretrain with every switch of the engine, and see the online probe in the metrics."""
    packed = quick("data", "pack", *SMALL[:2], "output=pack")
    assert packed.returncode == 0, packed.stderr
    assert "next: musictf pretrain dataset=packed" in packed.stdout
    data = ["dataset=packed", "dataset.root=pack", "wandb.mode=disabled", "trainer=cpu", "output_dir=run"]
    engine = [
        "micro_batch=3",
        "token_dropping=0.5",
        "activation_checkpointing=true",
        "augment=mild",
        "pairs.excerpts_per_track=2",
    ]
    watch = ["online_probe=synthetic", "online_probe.num_tracks=12", "online_probe.every=2", "log_every=1"]
    done = quick("pretrain", *data, *TINY, *engine, *watch, "max_steps=3", "batch_size=8")
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["online/chord_accuracy_layer1"]] == ["0", "2", "3"]
    assert all(float(row["train/loss"]) > 0 for row in rows[1:])


def test_a_run_that_goes_wrong_ends_with_one_line_and_status_1(tmp_path, quick):
    data = ["output_dir=run", "max_steps=5", "batch_size=4", "optim.learning_rate=1e30", "log_every=1"]
    done = quick("pretrain", *SMALL, *TINY, *data, "trainer.enable_progress_bar=false")
    assert done.returncode == 1
    assert "guard.budget=0 allows fewer" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "run" / "bad_batches.jsonl").read_text().splitlines()[0])["tracks"]


@pytest.mark.slow
def test_probe_scores_agree_with_mir_eval_on_the_written_estimates(pretrained, tmp_path, quick):
    corpus = tmp_path / "corpus"
    _as_manifest_corpus(corpus)
    data = ["dataset=manifest", f"dataset.root={corpus}", "wandb.mode=disabled", "trainer=cpu", "probe.steps=30"]
    done = quick("probe", f"backbone={pretrained}", "task=chord", *data, "output_dir=probe")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "probe" / "results.jsonl").read_text().splitlines()]
    mine = [
        row
        for row in rows
        if row["selected"] and row["readout"] == "sequence" and row["backbone"]["kind"] == "pretrained"
    ]
    assert {row["decoder"]["name"] for row in mine} == {"argmax", "viterbi"}
    for row in mine:
        cell = f"chord_sequence_layer{row['layer']}_seed{row['seed']}"
        folder = tmp_path / "probe" / "estimates" / "pretrained" / row["decoder"]["name"] / cell
        scores = []
        for path in sorted(folder.glob("*.lab")):
            reference = mir_eval.io.load_labeled_intervals(str(corpus / "chords" / path.name))
            estimate = mir_eval.io.load_labeled_intervals(str(path))
            scores.append(mir_eval.chord.evaluate(*reference, *estimate)["majmin"])
        assert len(scores) == row["split"]["scored"]
        assert np.mean(scores) == pytest.approx(row["scores"]["majmin"]["mean"], abs=1e-6)
    baselines = {"random", "input", "mel", "mfcc", "chroma", "classical", "majority", "oracle"}
    assert {row["backbone"]["kind"] for row in rows} == {"pretrained"} | baselines


@pytest.mark.slow
@pytest.mark.ddp
def test_two_processes_train_log_once_and_write_one_folder(pretrained, tmp_path):
    ranks = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    settings = [*SMALL[:3], *TINY, *ranks, "max_steps=4", "batch_size=4", "log_every=2", "valid_every=2"]
    done = musictf("pretrain", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs" / "pretrain").iterdir()
    steps = [line.split(",")[0] for line in (folder / "metrics.csv").read_text().splitlines()]
    assert steps == ["step", "2", "4"]
    assert done.stdout.count("backbone:") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_sweep_runs_each_job_and_refuses_several_processes(tmp_path, pretrained, quick):
    steps = ["max_steps=1", "batch_size=4", "trainer.enable_progress_bar=false"]
    done = quick("pretrain", "-m", *SMALL, *TINY, *steps, "seed=0,1", "output_dir=sweep")
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / "sweep" / str(job) / "backbone.safetensors").is_file() for job in (0, 1))
    unnamed = quick("pretrain", "-m", *SMALL, *TINY, *steps, "seed=0,1")
    assert unnamed.returncode == 0, unnamed.stderr
    assert len(list((tmp_path / "runs" / "pretrain").glob("sweep-*/*/backbone.safetensors"))) == 2
    refused = quick("pretrain", "-m", *SMALL, *TINY, *steps, "seed=0,1", "trainer.devices=2")
    assert refused.returncode == 2
    assert "single-process" in refused.stderr


@pytest.mark.slow
def test_a_new_task_is_one_python_file(pretrained, tmp_path):
    for part in ("musictf", "conf"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "musictf" / "tasks" / "mode.py").write_text(TOY_TASK)
    there = {"cwd": tmp_path, "module_path": tmp_path}
    assert "mode" in musictf("probe", "--help", **there).stdout
    settings = [*SMALL, "probe.steps=10", "layers=[0]", "output_dir=probe"]
    done = musictf("probe", f"backbone={pretrained}", "task=mode", *settings, **there)
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    assert "mode on synthetic" in musictf("report", "probe", "--format", "md", **there).stdout


TOY_TASK = '''"""Major or minor: a toy."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from musictf.tasks.base import Task, track_means


@dataclass(kw_only=True)
class Mode(Task):
    """Is the key major?"""

    name: ClassVar[str] = "mode"
    annotation: ClassVar[str] = "key"
    level: ClassVar[str] = "track"
    headline: ClassVar[str] = "accuracy"

    @property
    def num_outputs(self):
        return 1

    def encode(self, annotation, times):
        return torch.tensor([float(annotation.endswith("major"))])

    def loss(self, logits, targets):
        return F.binary_cross_entropy_with_logits(logits, targets)

    def decode(self, logits, times, seconds, decoder):
        return "major" if logits.mean() > 0 else "minor"

    def score(self, references, estimates):
        hits = [float(reference.endswith(estimate)) for reference, estimate in zip(references, estimates)]
        return track_means({"accuracy": hits})

    def majority_estimate(self, annotations, seconds):
        return "major" if np.mean([key.endswith("major") for key in annotations]) >= 0.5 else "minor"

    def write(self, estimate, path):
        path.write_text(estimate)
'''


def _as_manifest_corpus(target):
    """The synthetic songs as somebody's own manifest corpus."""
    from musictf.synthesis.synthetic import Synthetic

    songs = Synthetic(num_tracks=20, seconds=12)
    songs.all_tracks()
    shutil.copytree(songs.folder, target)


def test_ctrl_c_leaves_a_run_that_the_same_command_finishes(tmp_path, pretrained, forked, quick):
    steps = [
        "max_steps=2000",
        "num_workers=1",
        "batch_size=4",
        "output_dir=run",
        "log_every=1",
        "valid_every=1000",
        "checkpoint.every=1000",
    ]
    process = forked(["pretrain", *SMALL, *TINY, *steps], tmp_path)
    metrics = tmp_path / "run" / "metrics.csv"
    deadline = time.monotonic() + 120
    while not metrics.is_file() and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the loaders hear it as well
    assert process.wait(120) == 1
    assert "goes on" in process.stderr
    assert json.loads((tmp_path / "run" / "status.json").read_text())["status"] == "failed"
    reached = len(metrics.read_text().splitlines()) - 1
    steps[0] = f"max_steps={reached + 2}"
    done = quick("pretrain", *SMALL, *TINY, *steps)
    assert done.returncode == 0, done.stderr
    assert [int(line.split(",")[0]) for line in metrics.read_text().splitlines()[1:]] == list(range(1, reached + 3))
