"""A tiny corpus of triads and clicks, a tiny backbone, and runs of the whole probe on them."""

import json

import numpy as np
import pytest
import soundfile

from musictf.annotations import Beats, Chords, write_beats, write_chords
from musictf.datasets.manifest import Manifest
from musictf.distributed import TrainerConfig
from musictf.evaluation.probe_run import ProbeRun, probe
from musictf.models.backbone import random_backbone, save_backbone
from musictf.models.vit1d import ViT1DConfig
from musictf.probing.linear_probe import ProbeConfig
from musictf.results.names import PROBE_BASELINES
from musictf.tasks.beat import BeatTask
from musictf.tasks.chord import ChordTask
from musictf.tasks.tagging import TaggingTask

SAMPLE_RATE = 16000
SHAPE = ViT1DConfig(depth=2, embed_dim=16, num_heads=2)
TASKS = {"tagging": TaggingTask, "chord": ChordTask, "beat": BeatTask}
ROOTS = ("C", "D", "E", "F", "G", "A")
SEMITONES = (0, 2, 4, 5, 7, 9)
SPLITS = ["train"] * 5 + ["valid"] * 2 + ["test"] * 3


def write_track(folder, index):
    """Sine triads that change every second, clicks twice a second; loud tracks and low ones."""
    seconds = 8.0 + 0.5 * (index % 3)
    generator = np.random.default_rng(index)
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    waveform = 0.01 * generator.normal(size=len(time))
    changes = np.append(np.arange(0.0, seconds - 0.5, 1.0), seconds)
    labels = []
    for start, end in zip(changes[:-1], changes[1:], strict=True):
        k, is_minor = generator.integers(len(ROOTS)), generator.integers(2)
        labels.append(f"{ROOTS[k]}:{'min' if is_minor else 'maj'}")
        inside = (time >= start) & (time < end)
        for step in (0, 3 if is_minor else 4, 7):
            pitch = 220 * 2 ** ((SEMITONES[k] + step) / 12)
            waveform[inside] += 0.1 * np.sin(2 * np.pi * pitch * time[inside])
    beats = np.arange(0.25 + 0.04 * index, seconds - 0.05, 0.5)
    for number, beat in enumerate(beats):
        first = int(beat * SAMPLE_RATE)
        click = (0.9 if number % 4 == 0 else 0.5) * generator.normal(size=300)
        waveform[first : first + 300] += click[: len(waveform) - first]
    name = f"t{index}"
    soundfile.write(folder / f"{name}.wav", waveform.clip(-1, 1), SAMPLE_RATE, subtype="FLOAT")
    write_chords(folder / f"{name}.lab", Chords(np.column_stack([changes[:-1], changes[1:]]), labels))
    write_beats(folder / f"{name}.beats", Beats(beats, np.arange(len(beats)) % 4 + 1))
    tags = [tag for tag, present in (("even", index % 2 == 0), ("third", index % 3 == 0)) if present]
    return {
        "track_id": name,
        "audio": f"{name}.wav",
        "split": SPLITS[index],
        "chords": f"{name}.lab",
        "beats": f"{name}.beats",
        "tags": tags,
    }


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "tiny"
    folder.mkdir()
    lines = [json.dumps(write_track(folder, index)) for index in range(len(SPLITS))]
    (folder / "manifest.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="session")
def backbone_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("backbone") / "backbone.safetensors"
    save_backbone(random_backbone(SHAPE, seed=7), path, {"corpus": "noise", "corpus_digest": "d", "steps": 3})
    return path


@pytest.fixture(scope="session")
def configured(corpus, backbone_path):
    """A short probe run on the tiny corpus, with anything changed."""

    def make(task, folder, **changes):
        values = {
            "backbone": str(backbone_path),
            "task": TASKS[task](),
            "dataset": Manifest(root=str(corpus)),
            "model": SHAPE,
            "trainer": TrainerConfig(accelerator="cpu"),
            "readouts": ["sequence"],
            "seeds": [0],
            "baselines": [],
            "probe": ProbeConfig(learning_rates=[3e-3, 3e-2], steps=30, batch_size=256, valid_every=15),
            "output_dir": str(folder),
        }
        return ProbeRun(**values | changes)

    return make


@pytest.fixture(scope="session", params=sorted(TASKS))
def finished(request, configured, tmp_path_factory):
    """A whole run of each task: all readouts, two seeds, all baselines."""
    folder = tmp_path_factory.mktemp("run") / request.param
    everything = {"readouts": ["class", "sequence", "average"], "baselines": list(PROBE_BASELINES)}
    probe(configured(request.param, folder, seeds=[0, 1], **everything))
    return folder


@pytest.fixture
def read_rows():
    def read(folder):
        return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]

    return read


@pytest.fixture
def altered(corpus, tmp_path):
    """The corpus with lines of its manifest changed: ``change(fields)`` for each track; None drops it."""

    def make(change):
        lines = []
        for line in (corpus / "manifest.jsonl").read_text().splitlines():
            fields = json.loads(line)
            for key in ("audio", "chords", "beats"):
                fields[key] = str(corpus / fields[key])
            if (changed := change(fields)) is not None:
                lines.append(json.dumps(changed))
        folder = tmp_path / "tiny"
        folder.mkdir()
        (folder / "manifest.jsonl").write_text("\n".join(lines))
        return Manifest(root=str(folder))

    return make
