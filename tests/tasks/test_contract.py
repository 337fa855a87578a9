"""What every task in ``musictf/tasks`` must do."""

import importlib
import json
import math
import pkgutil
from pathlib import Path

import mir_eval
import numpy as np
import pytest
import torch
import yaml

import musictf.tasks
from musictf.annotations import Beats, Chords, read_beats, read_chords, read_onsets
from musictf.config import groups
from musictf.tasks.base import Scores, Task
from musictf.tasks.tempo import Tempi

CONF = Path(musictf.tasks.__file__).resolve().parents[2] / "conf" / "task"


def found_tasks():
    names = [module.name for module in pkgutil.iter_modules(musictf.tasks.__path__)]
    members = [vars(importlib.import_module(f"musictf.tasks.{name}")).values() for name in names]
    tasks = {c for group in members for c in group if isinstance(c, type) and issubclass(c, Task) and c is not Task}
    return sorted(tasks, key=lambda task: task.name)


TASKS = found_tasks()
SHARED = {"base", "chord_scores", "chroma"}  # files of the folder that hold what tasks share
TIMES = np.arange(626) * 512 / 16000
SECONDS = 20.0
CHANGES = [0.0, *((np.array([60, 200, 330, 470]) + 0.5) * 512 / 16000), SECONDS]  # half-way between two tokens
HALVES = np.column_stack([CHANGES[:-1], CHANGES[1:]])

BEATS = [Beats(np.arange(0.3, 19.5, step), np.arange(len(np.arange(0.3, 19.5, step))) % 4 + 1) for step in (0.5, 0.6)]

# One list of annotations a task; a new task needs its own.
ANNOTATIONS = {
    "tagging": [["piano"], ["piano", "slow"], ["slow"], ["loud"], ["loud", "piano"]],
    "chord": [
        Chords(HALVES, ["C:maj", "A:min", "N", "F:maj", "G:maj"]),
        Chords(HALVES, ["D:min", "C:maj", "C:maj", "Bb:maj", "N"]),
    ],
    "beat": BEATS,
    "downbeat": BEATS,
    "tempo": BEATS,
    "onset": [np.arange(0.2, 19.5, 0.22), np.array([0.5, 0.9, 1.6, 4.0, 12.3])],
    "key": ["C major", "Db minor", "f# Minor", "C major", "a minor"],
    "classification": ["rock", "jazz", "rock", "classical"],
}


def read_tempi(path):
    (slow, fast), weight = mir_eval.io.load_tempo(str(path))
    return Tempi(slow, fast, weight)


READERS = {
    "chord": read_chords,
    "beat": read_beats,
    "downbeat": read_beats,
    "onset": read_onsets,
    "tempo": read_tempi,
    "key": lambda path: mir_eval.io.load_key(str(path)),
}


@pytest.fixture(params=TASKS, ids=lambda task: task.name)
def task(request):
    made = request.param()
    made.prepare(ANNOTATIONS[made.name])
    return made


@pytest.fixture
def annotations(task):
    return ANNOTATIONS[task.name]


def perfect_logits(task, annotation):
    """Logits of a perfect probe: (K, C), or (E, C) for two excerpts of a track."""
    target = task.encode(annotation, TIMES)
    if target.is_floating_point():
        logits = (target - 0.5) * 20
        return (logits.expand(2, -1) if task.level == "track" else logits).numpy()
    logits = torch.nn.functional.one_hot(target.clamp(min=0), task.num_outputs) * 20.0
    return (logits.expand(2, -1) if task.level == "track" else logits).numpy()


def perfect_estimates(task, annotations, decoder):
    logits = [perfect_logits(task, annotation) for annotation in annotations]
    settings = task.calibrate(decoder, logits, [TIMES] * len(logits), annotations)
    assert settings["name"] == decoder
    return [task.decode(track, TIMES, SECONDS, settings) for track in logits]


def a_batch(task, annotations):
    targets = [task.encode(annotation, TIMES) for annotation in annotations]
    batch = torch.stack(targets) if task.level == "track" else torch.cat(targets)
    return torch.randn(6, len(batch), task.num_outputs, generator=torch.Generator().manual_seed(0)), batch


def test_every_file_of_the_folder_holds_a_task_that_can_be_chosen_by_its_name():
    files = {module.name for module in pkgutil.iter_modules(musictf.tasks.__path__)} - SHARED
    assert {task.__module__.rsplit(".", 1)[1] for task in TASKS} == files
    assert len({task.name for task in TASKS}) == len(TASKS)
    assert {task.name for task in TASKS} <= set(groups()["task"])


def test_a_file_of_conf_is_a_variant_of_a_task():
    by_name = {task.name: task for task in TASKS}
    for path in CONF.glob("*.yaml"):
        choice = yaml.safe_load(path.read_text())
        task = by_name[choice.pop("defaults")[0]]
        assert choice, f"{path.name} sets nothing"  # a task needs no file
        assert path.stem == task(**choice).display_name


def test_no_two_tasks_log_an_online_score_under_one_name():
    names = [name for task in TASKS for name in (task.online_metric, task.online_knn_metric) if name]
    assert {"tag_map", "knn_accuracy", "chord_accuracy", "beat_ap"} <= set(names)
    assert len(set(names)) == len(names)


def test_every_task_defines_its_members(task, annotations):
    assert task.name
    assert task.annotation
    assert task.level in {"frame", "track"}
    assert task.suffix.startswith(".")
    assert len(set(task.decoders)) == len(task.decoders) > 0
    assert task.__doc__
    assert task.headline in task.score(annotations, perfect_estimates(task, annotations, task.decoders[0])).corpus


def test_a_target_has_one_entry_a_token_or_one_for_the_track(task, annotations):
    target = task.encode(annotations[0], TIMES)
    if task.level == "track":
        assert target.shape in {(), (task.num_outputs,)}
    else:
        assert len(target) == len(TIMES)


def test_loss_of_many_heads_at_once_is_the_loss_of_each(task, annotations):
    logits, targets = a_batch(task, annotations)
    logits.requires_grad_()
    together = torch.vmap(task.loss, in_dims=(0, None))(logits, targets)
    (gradient,) = torch.autograd.grad(together.sum(), logits)
    alone = torch.stack([task.loss(head, targets) for head in logits])
    (expected,) = torch.autograd.grad(alone.sum(), logits)
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-8)


def test_loss_is_smaller_for_the_truth_than_for_noise(task, annotations):
    logits, targets = a_batch(task, annotations)
    rows = [torch.as_tensor(perfect_logits(task, annotation)) for annotation in annotations]
    truth = torch.stack([track[0] for track in rows]) if task.level == "track" else torch.cat(rows)
    assert task.loss(truth, targets) < 0.3 * task.loss(logits[0], targets)


def test_a_perfect_estimate_scores_1(task, annotations):
    for decoder in task.decoders:
        scores = task.score(annotations, perfect_estimates(task, annotations, decoder))
        if decoder == task.decoders[0]:
            assert scores.corpus[task.headline] == pytest.approx(1.0, abs=1e-9)
        assert scores.corpus[task.headline] > 0.9


def test_scores_are_finite_and_track_values_average_to_them(task, annotations):
    scores = task.score(annotations, perfect_estimates(task, annotations, task.decoders[0]))
    assert isinstance(scores, Scores)
    assert all(math.isfinite(value) for value in scores.corpus.values())
    for name, values in scores.per_track.items():
        assert values.shape == (len(annotations),)
        assert np.nanmean(values) == pytest.approx(scores.corpus[name])


def test_a_score_has_tracks_or_can_be_resampled(task, annotations):
    estimates = perfect_estimates(task, annotations, task.decoders[0])
    scores = task.score(annotations, estimates)
    resampled = task.resample(annotations, estimates, np.ones((3, len(annotations))))
    for name, value in scores.corpus.items():
        assert name in scores.per_track or resampled[name] == pytest.approx([value] * 3)


def test_the_majority_estimate_needs_no_logits_and_can_be_scored(task, annotations):
    estimates = [task.majority_estimate(annotations, SECONDS) for _ in annotations]
    value = task.score(annotations, estimates).corpus[task.headline]
    assert 0 <= value < 1


def test_a_track_of_one_token_or_one_excerpt_has_an_estimate_that_can_be_scored(task, annotations):
    for decoder in task.decoders:
        logits = [np.zeros((1, task.num_outputs))] * len(annotations)
        settings = task.calibrate(decoder, logits, [np.zeros(1)] * len(annotations), annotations)
        estimates = [task.decode(track, np.zeros(1), 0.02, settings) for track in logits]
        assert 0 <= task.score(annotations, estimates).corpus[task.headline] <= 1


def test_details_are_plain_and_never_nan(task, annotations):
    for estimates in (
        perfect_estimates(task, annotations, task.decoders[0]),
        [task.majority_estimate(annotations, SECONDS)] * len(annotations),
    ):
        tables, counts = task.details(annotations, estimates), task.score(annotations, estimates).details
        assert not set(tables) & set(counts)  # rows hold both in one place
        for details in (tables, counts):
            assert json.loads(json.dumps(details, allow_nan=False)) == details


def test_a_classical_system_estimates_from_the_waveform_alone_at_any_length(task, annotations):
    if not task.classical:
        with pytest.raises(NotImplementedError):
            task.classical_estimate(np.zeros(16000, np.float32), 16000)
        return
    noise = np.random.default_rng(0).normal(0, 0.1, 48000).astype(np.float32)
    for waveform in (noise, np.zeros(48000, np.float32), noise[:100], noise[:1]):
        for rate in (16000, 44100):
            estimate = task.classical_estimate(waveform, rate)
            scores = task.score(annotations, [estimate] * len(annotations))
            assert 0 <= scores.corpus[task.headline] < 1


def test_written_estimates_read_back_as_they_were(task, annotations, tmp_path):
    estimate = perfect_estimates(task, annotations, task.decoders[0])[0]
    path = tmp_path / f"track{task.suffix}"
    task.write(estimate, path)
    if task.name not in READERS:
        assert path.read_text().count("\n") == 1 + task.num_outputs
        return
    again = READERS[task.name](path)
    assert task.score(annotations[:1], [again]).corpus == pytest.approx(
        task.score(annotations[:1], [estimate]).corpus, abs=1e-4
    )
