"""Benchmarks of pretraining: what is compared is the same work on both sides."""

from __future__ import annotations

import sys
from pathlib import Path

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from musictf.datasets.base import Track
from musictf.datasets.folder import Folder
from musictf.models.vit1d import ViT1DConfig
from musictf.packing.packed import Packed
from musictf.pretraining.module import ContrastivePretraining, StepConfig

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "benchmarks"

SMALL = ViT1DConfig(depth=2, embed_dim=16, num_heads=2, max_frames=8)


def mels(pairs=3, config=SMALL):
    return torch.randn(2 * pairs, 128, config.max_frames, generator=torch.Generator().manual_seed(0))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice about workers
@pytest.mark.parametrize("settings", [StepConfig(), StepConfig(token_dropping=0.5)])
def test_our_step_is_the_one_that_a_run_makes(load, settings, tmp_path):
    step = load("step")
    timed = step.OurStep(SMALL, mels(), False, settings)
    before = timed.module.backbone.encoder.pos_embed.clone()
    timed()
    trained = step.our_module(SMALL, mels(), settings)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(accelerator="cpu", max_steps=1, default_root_dir=tmp_path, **options)
    trainer.fit(trained, DataLoader([step.batch_of(3)], batch_size=None))
    assert not torch.equal(timed.module.backbone.encoder.pos_embed, before)
    for name, value in trained.state_dict().items():
        torch.testing.assert_close(value, timed.module.state_dict()[name], msg=name)


def test_the_plain_step_trains_a_network_of_the_same_shape(load):
    step = load("step")
    run = step.PlainStep(SMALL, mels(), False)
    model, before = run.model, {name: value.clone() for name, value in run.model.state_dict().items()}
    run()
    assert all(not torch.equal(value, before[name]) for name, value in model.state_dict().items() if "weight" in name)
    ours = step.our_module(SMALL, mels()).backbone.encoder
    count = sum(value.numel() for value in model.parameters())
    assert count == sum(value.numel() for value in ours.parameters()) - 2 * 128  # our norm of the frames
    assert model(mels()).shape == (6, SMALL.embed_dim)
    assert model.pos_embed.shape[1] == len(ours.pos_embed) == 1 + SMALL.max_frames


def by_hand(config, pairs):
    """Multiplications and additions of a training step: three products for each of the forward pass."""
    views, tokens, dim = 2 * pairs, 1 + config.max_frames, config.embed_dim
    whole = 12 * views * tokens * dim**2 + 2 * views * tokens**2 * dim  # qkv, proj, fc1, fc2; both of attention
    last = (2 * tokens + 10) * views * dim**2 + 2 * views * tokens * dim  # one query, one token after it
    frames, contrast = views * (tokens - 1) * 128 * dim, views**2 * dim
    return 2 * 3 * ((config.depth - 1) * whole + last + frames + contrast)


def test_every_product_of_a_step_is_noted_and_done_again(load):
    step = load("step")
    run = step.OurStep(SMALL, mels(), False)
    noted = step.products_of(run)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    unknown_to_torch = 2 * 6**2 * SMALL.embed_dim  # the one product in place, of the loss
    assert step.flop(noted) == counter.get_total_flops() + unknown_to_torch == by_hand(SMALL, 3)
    with FlopCounterMode(display=False) as counter:
        step.alone(noted, "cpu")()
    assert counter.get_total_flops() == step.flop(noted)
    assert step.products_of(step.alone(noted, "cpu")) == noted


def test_the_products_have_the_precision_of_the_step(load):
    step = load("step")
    noted = step.products_of(step.OurStep(SMALL, mels(), True))
    kinds = [first[2] for first, _ in noted]
    assert {first[2] == second[2] for first, second in noted} == {True}
    assert kinds.count(torch.float32) == 3  # those of the loss
    assert set(kinds) == {torch.float32, torch.bfloat16}


def test_a_step_is_set_against_its_own_precision(load):
    step = load("step")
    names = [f"{side}, {precision}" for side in ("ours", "products", "plain") for precision in ("float32", "bf16")]
    seconds = dict(zip(names, [2.0, 1.0, 1.5, 0.45, 3.0, 1.5], strict=True)) | {"dropping": 1.0}
    product = ((torch.Size([2, 3]), (3, 1), torch.float32), (torch.Size([3, 5]), (5, 1), torch.float32))
    found = {row.name: row for row in step.rows(seconds, {"float32": [product], "bf16": [product] * 2}, 8)}
    expected = {
        "float32, of products": (2.0, 0.75, False),
        "bf16, of products": (1.0, 0.45, True),
        "float32, of the plain way": (2.0, 1.5, True),
        "bf16, of the plain way": (1.0, 1.5, False),
        "float32, 50% of the frames dropped": (1.0, 2.0, True),
    }
    assert {name: (row.value, row.ratio, row.met) for name, row in found.items()} == expected
    assert "its 2 matrix products alone" in found["bf16, of products"].against


def test_both_losses_are_the_same(load):
    contrast = load("contrast")
    found = {}
    for name, side in contrast.SIDES.items():
        views = contrast.embeddings(16, "cpu")
        loss = side(*views)
        loss.backward()
        found[name] = (loss.detach(), *(view.grad for view in views))
    for ours, theirs in zip(found["ours"], found["lightly"], strict=True):
        torch.testing.assert_close(ours, theirs)
    assert contrast.embeddings(16, "cpu")[0].abs().sum() > 0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").is_file(), reason="peaks of memory are read from Linux's /proc")
def test_the_peak_is_what_was_held_at_once_above_the_start(load):
    apart = load("apart")

    def hold_and_free():
        torch.ones(25_000_000)  # 100 MB, gone before the next
        return torch.ones(50_000_000)

    for _ in range(2):  # no peak of before counts
        assert apart.peak_bytes(hold_and_free) == pytest.approx(200e6, rel=0.1)
    assert apart.peak_bytes(lambda: None) < 5e6


def test_another_process_inherits_nothing_of_ours(load):
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(before + 1)
    try:
        assert load("apart").in_new_process(sys.getrecursionlimit) != before + 1
    finally:
        sys.setrecursionlimit(before)


def test_memory_is_compared_in_gigabytes(load):
    found = load("apart").smaller("x", 2 * 10**9, 5 * 10**9, "another", 3.0)
    assert (found.value, found.unit, found.ratio, found.met) == (2.0, "GB", 2.5, False)
    assert found.against == "another: 5 GB"


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # Lightning's advice
def test_a_step_in_parts_learns_what_the_whole_does(load, monkeypatch):
    micro_batch, sizes = load("micro_batch"), []
    embed = ContrastivePretraining.class_tokens

    def counting(module, batch):
        sizes.append(len(batch["first"]))
        return embed(module, batch)

    monkeypatch.setattr(ContrastivePretraining, "class_tokens", counting)
    whole, parts, nothing = (micro_batch.one_step(SMALL, 4, part, "cpu") for part in (None, 2, 4))
    assert sizes == [4, 2, 2, 2, 2, 4]
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=1e-5, rtol=1e-3, msg=name)
        torch.testing.assert_close(nothing[name], value, msg=name)


@pytest.fixture(scope="module")
def tones(tmp_path_factory, corpus_maker):
    return Folder(root=str(corpus_maker(tmp_path_factory.mktemp("tones"), num_tracks=3, seconds=6.0)))


def test_a_packed_part_of_a_corpus_has_its_first_training_tracks(load, tones):
    every = tones.tracks("train")
    with load("real_runs").packed(tones, 2) as folder:
        assert [track.track_id for track in Packed(root=str(folder)).all_tracks()] == [t.track_id for t in every[:2]]
    assert not folder.exists()


@pytest.mark.filterwarnings("ignore:.*slated for removal in Python:DeprecationWarning")  # what librosa's reader imports
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_all_ways_read_the_same_excerpts(load, tmp_path, corpus_maker, rate):
    excerpts = load("excerpts")
    corpus = Folder(root=str(corpus_maker(tmp_path / "music", 2, 6.0, rate)))
    with load("real_runs").packed(corpus, 2) as folder:
        track = excerpts.compressed(Packed(root=str(folder)).all_tracks()[1], folder)
        assert track.audio.suffix == ".ogg"
        place = (track, (4000, 30_000))
        ours = [track.slots[0].read(start, 20_000) / 32768 for start in place[1]]
        whole, sought = excerpts.whole(place, 16_000, 20_000), excerpts.seek(place, 16_000, 20_000)
    assert {len(view) for view in sought} == {20_000 * rate // 16_000}
    for one, other, raw in zip(ours, whole, sought, strict=True):
        at_our_rate = np.interp(np.arange(20_000) / 16_000, np.arange(len(raw)) / rate, raw)
        assert np.corrcoef(one, other)[0, 1] > 0.95
        assert np.corrcoef(one, at_our_rate)[0, 1] > 0.95


def test_a_compressed_original_is_read_as_it_is(load, tmp_path):
    track = Track(track_id="a/b", audio=tmp_path / "song.ogg")
    assert load("excerpts").compressed(track, tmp_path / "elsewhere") is track


def test_our_pairs_are_all_read_once_in_batches(load):
    calls = []

    class Counting:
        def __getitems__(self, examples):
            calls.append(examples)

    load("excerpts").ours(Counting(), range(300))
    assert [len(batch) for batch in calls] == [128, 128, 44]
    assert sum(calls, []) == list(range(300))


def test_speeds_of_reading_are_pairs_a_second(load, tones):
    excerpts = load("excerpts")
    with load("real_runs").packed(tones, 2) as folder:
        tracks = Packed(root=str(folder)).all_tracks()
    seek, whole = excerpts.rows({"ours": 6000.0, "soundfile": 150.0, "librosa": 10.0}, tracks)
    assert (seek.value, seek.ratio, seek.met) == (6000.0, 40.0, True)
    assert (whole.value, whole.ratio, whole.met) == (6000.0, 600.0, False)
    assert "2 tracks of wav, 0.2 min" in seek.against


def test_the_start_of_a_run_does_not_count(load, tmp_path):
    path = tmp_path / "metrics.csv"
    columns = "step,train/examples_per_second,train/data_wait,valid/loss\n"
    path.write_text(f"{columns}2,1,0.9,\n3,,,0.5\n4,10,0.02,\n6,30,0.06,\n")
    found = load("real_runs").logged(path)
    assert found == load("real_runs").Logged([10.0, 30.0], [0.02, 0.06])
    (waiting,) = load("waiting").rows(found)
    assert (waiting.value, waiting.met, waiting.ratio) == (pytest.approx(0.04), False, None)
    assert load("waiting").rows(load("real_runs").Logged([1.0], [0.029]))[0].met


def test_one_and_two_processes_get_the_same_work(load, frame, tones, monkeypatch):
    ranks, told = load("ranks"), []

    def pretrained(pack, threads, keys):
        devices = 2 if "trainer.devices=2" in keys else 1
        told.append((threads, devices, sorted(key for key in keys if not key.startswith("trainer."))))
        return load("real_runs").Logged([100.0 * devices, 110.0 * devices, 60.0], [0.0] * 3)

    monkeypatch.setattr(ranks, "pretrained", pretrained)
    (found,) = ranks.measure(frame.Settings(corpus=tones))
    assert [devices for _, devices, _ in told] == [1, 2, 2, 1]
    assert {threads for threads, _, _ in told} == {1}
    assert all(keys == told[0][2] for _, _, keys in told)
    assert (found.value, found.ratio, found.met) == (200.0, 2.0, True)
    assert not ranks.rows([100.0], [179.0])[0].met


@pytest.mark.slow
def test_a_run_that_fails_says_why(load, tmp_path):
    with pytest.raises(RuntimeError, match="no pack"):
        load("real_runs").pretrained(tmp_path, 1, [])
