"""The speedometer under a clock that the test turns: who takes how long is known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.profilers import PassThroughProfiler, SimpleProfiler
from torch.utils.data import DataLoader, IterableDataset

from musictf.pretraining import speed
from musictf.pretraining.speed import Speedometer, peak_memory

FETCH, STEP, VALIDATION, CHECKPOINT, BUSY = 2.0, 3.0, 50.0, 70.0, 20.0  # seconds
NAMES = ("examples_per_second", "data_wait", "memory_gb", "hours_left")


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(speed, "perf_counter", lambda: clock.now)
    return clock


class Batches(IterableDataset):
    """Unending, as pretraining's are."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds = clock, seconds

    def __iter__(self):
        while True:
            self.clock.now += self.seconds
            yield torch.ones(2)


class Slow(L.LightningModule):
    def __init__(self, clock):
        super().__init__()
        self.clock, self.layer = clock, torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        self.clock.now += STEP
        return self.layer(batch).mean()

    def validation_step(self, batch, batch_idx):
        self.clock.now += VALIDATION

    def on_save_checkpoint(self, checkpoint):
        self.clock.now += CHECKPOINT

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Busy(L.Callback):
    def __init__(self, clock):
        self.clock = clock

    def on_train_start(self, trainer, pl_module):
        self.clock.now += 100 * BUSY

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.clock.now += BUSY


class Kept(DummyLogger):
    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step + 1, {name: float(value) for name, value in metrics.items() if name != "epoch"}))


@pytest.fixture
def fit(clock, tmp_path):
    """Train for some steps: rows of (step, values), and the trainer."""

    def run(max_steps, log_every, callbacks=(), checkpoint=None, valid_every=None, **settings):
        logger = Kept()
        trainer = L.Trainer(
            accelerator="cpu",
            max_steps=max_steps,
            max_epochs=-1,
            log_every_n_steps=log_every,
            val_check_interval=valid_every,
            check_val_every_n_epoch=None,
            limit_val_batches=1 if valid_every else 0,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=False,
            enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
            logger=logger,
            default_root_dir=tmp_path,
            callbacks=[Speedometer(max_steps, batch_size=16, log_every=log_every), *callbacks],
            **settings,
        )
        train, valid = (DataLoader(Batches(clock, seconds), batch_size=None) for seconds in (FETCH, 40.0))
        trainer.fit(Slow(clock), train, valid, ckpt_path=checkpoint, weights_only=True)
        return [(step, values) for step, values in logger.rows if "train/data_wait" in values], trainer

    return run


pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*val_check_interval.*")


def test_speed_waiting_and_time_left_are_those_of_the_clock(fit):
    rows, _ = fit(max_steps=8, log_every=2)
    assert [step for step, _ in rows] == [2, 4, 6, 8]
    for step, values in rows:
        assert sorted(values) == sorted(f"train/{name}" for name in NAMES)
        assert values["train/hours_left"] == pytest.approx((8 - step) * (FETCH + STEP) / 3600)
    for _, values in rows[1:]:  # the first window begins with the first step, not with its data
        assert values["train/examples_per_second"] == pytest.approx(16 / (FETCH + STEP))
        assert values["train/data_wait"] == pytest.approx(FETCH / (FETCH + STEP))
    assert rows[0][1]["train/data_wait"] == pytest.approx(FETCH / (FETCH + 2 * STEP))


def test_neither_validation_nor_checkpoints_nor_callbacks_count_as_waiting(fit, clock, tmp_path):
    saved = ModelCheckpoint(tmp_path, every_n_train_steps=1)
    rows, _ = fit(max_steps=6, log_every=2, callbacks=[Busy(clock), saved], valid_every=2)
    window = 2 * (FETCH + STEP + BUSY + CHECKPOINT) + VALIDATION + 40.0
    for _, values in rows[1:]:
        assert values["train/data_wait"] == pytest.approx(2 * FETCH / window)
        assert values["train/examples_per_second"] == pytest.approx(2 * 16 / window)  # it is wall time


def test_the_estimate_leaves_out_what_comes_before_the_second_step(fit, clock):
    class Compiling(L.Callback):
        def on_before_backward(self, trainer, pl_module, loss):
            clock.now += 1000.0 if trainer.global_step == 0 else 0.0

    rows, _ = fit(max_steps=10, log_every=5, callbacks=[Compiling()])
    assert rows[0][1]["train/hours_left"] == pytest.approx(5 * (FETCH + STEP) / 3600)
    rows, _ = fit(max_steps=2, log_every=1)
    assert rows[0][1]["train/hours_left"] == pytest.approx(STEP / 3600)  # there is nothing better after one step


def test_a_resumed_run_counts_its_own_steps_only(fit, tmp_path):
    _, trainer = fit(max_steps=6, log_every=2)
    trainer.save_checkpoint(tmp_path / "six.ckpt")
    rows, _ = fit(max_steps=12, log_every=2, checkpoint=tmp_path / "six.ckpt")
    assert [step for step, _ in rows] == [8, 10, 12]
    for step, values in rows:
        assert values["train/hours_left"] == pytest.approx((12 - step) * (FETCH + STEP) / 3600)
    assert rows[1][1]["train/examples_per_second"] == pytest.approx(16 / (FETCH + STEP))


def test_accumulated_batches_are_one_step(fit):
    rows, _ = fit(max_steps=4, log_every=2, accumulate_grad_batches=3)
    assert [step for step, _ in rows] == [2, 4]
    assert rows[1][1]["train/examples_per_second"] == pytest.approx(16 / (3 * (FETCH + STEP)))


def test_the_bar_shows_waiting_and_minutes(fit):
    shown = []

    class Reader(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, *_):
            shown.append(dict(trainer.progress_bar_metrics))

    fit(max_steps=10, log_every=4, callbacks=[Reader()])
    assert shown[4] == pytest.approx(
        {"data_wait": 3 * FETCH / (3 * FETCH + 4 * STEP), "minutes_left": 6 * (FETCH + STEP) / 60}
    )


def test_the_profiler_that_was_there_hears_everything_and_comes_back(fit):
    mine = SimpleProfiler()
    _, trainer = fit(max_steps=4, log_every=2, profiler=mine)
    assert trainer.profiler is mine
    assert len(mine.recorded_durations["[_TrainingEpochLoop].train_dataloader_next"]) == 4
    assert len(mine.recorded_durations["run_training_batch"]) == 4


def test_the_profiler_comes_back_after_an_error(fit):
    class Failing(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            failed.append(trainer)
            raise RuntimeError("the disk is full")

    failed = []
    with pytest.raises(RuntimeError, match="disk is full"):
        fit(max_steps=4, log_every=2, callbacks=[Failing()])
    assert isinstance(failed[0].profiler, PassThroughProfiler)


def test_memory_is_the_most_this_process_has_held(monkeypatch):
    before = peak_memory(torch.device("cpu"))
    assert 5e7 < before < 1e11  # bytes: torch alone takes more than the one, and KiB would stay below it
    held = torch.ones(3 * before // 8)  # more than was ever free again
    assert peak_memory(torch.device("cpu")) - before > held.nbytes / 2
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 123)
    assert peak_memory(torch.device("cuda", 0)) == 123


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peaks of one process: Linux's /proc")
def test_memory_of_the_process_that_started_this_one_does_not_count():
    ask = "import torch; from musictf.pretraining.speed import peak_memory; print(peak_memory(torch.device('cpu')))"
    hold = "import subprocess, sys; held = b'x' * (2 << 30); subprocess.run([sys.executable, '-c', sys.argv[1]])"
    done = subprocess.run([sys.executable, "-c", hold, ask], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1.5 * 2**30
