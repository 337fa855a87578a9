"""The benchmarks run, their arithmetic is right, and both sides of a comparison do the same work."""

import csv
import importlib
import os
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as L
import numpy as np
import pytest
import soundfile
import torch
from scipy.optimize import minimize
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from musictf.datasets.base import Track
from musictf.datasets.folder import Folder
from musictf.datasets.packed import Packed
from musictf.models.vit1d import ViT1DConfig
from musictf.pretraining.module import StepConfig
from musictf.probing.features import FeatureConfig, extract
from musictf.probing.heads import Head
from musictf.probing.module import ProbeConfig, fit
from musictf.probing.readouts import Split
from musictf.runs import TrainerConfig
from musictf.tasks.chord import Chord

FOLDER = Path(__file__).resolve().parents[1] / "experiments" / "benchmarks"
NAMES = {"study", "extraction", "heads", "step", "contrast", "micro_batch", "excerpts", "waiting", "ranks"}
COLUMNS = ["name", "value", "unit", "against", "ratio", "target", "met", "machine", "commit"]


@pytest.fixture(scope="module")
def load():
    """A module of the benchmarks, as ``run.py`` sees it."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield importlib.import_module
    for name in {path.stem for path in FOLDER.glob("*.py")} - before:
        sys.modules.pop(name, None)


@pytest.fixture
def frame(load):
    return load("frame")


def rows_in(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_benchmark_is_found_by_its_file(load):
    assert set(load("run").benchmarks()) >= NAMES


def test_rounds_alternate_and_the_median_counts(frame, monkeypatch):
    calls = []
    clock = iter([0, 1, 10, 15, 20, 29, 30, 32, 40, 103, 110, 116])
    monkeypatch.setattr(frame.time, "perf_counter", lambda: next(clock))
    found = frame.alternated({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert "".join(calls) == "abbaab"
    assert found == {"a": 2, "b": 6}  # of 1, 2, 63 and of 5, 9, 6


def test_the_clock_waits_for_the_device_on_both_sides(frame, monkeypatch):
    events = []
    monkeypatch.setattr(frame.time, "perf_counter", lambda: events.append("clock") or 0.0)
    frame.timed(lambda: events.append("run"), lambda: events.append("wait"))
    assert events == ["wait", "clock", "run", "wait", "clock"]


@pytest.mark.parametrize(("theirs", "met"), [(99.0, False), (100.0, True)])
def test_a_ratio_says_how_many_times_faster_ours_is(frame, theirs, met):
    found = frame.faster("x", 2.0, theirs, "a loop", 50.0)
    assert (found.value, found.unit, found.ratio, found.met) == (2.0, "s", theirs / 2, met)
    assert found.against == f"a loop: {theirs:.4g} s"
    assert frame.faster("x", 2.0, theirs, "a loop").met is None


@pytest.mark.parametrize("before", [None, "/somewhere"])
def test_a_fresh_cache_is_empty_and_leaves_no_trace(frame, monkeypatch, before):
    monkeypatch.delenv("MUSICTF_CACHE", raising=False)
    if before is not None:
        monkeypatch.setenv("MUSICTF_CACHE", before)

    def fail_inside():
        with frame.fresh_cache() as folder:
            assert os.environ["MUSICTF_CACHE"] == str(folder)
            assert list(folder.iterdir()) == []
            raise ZeroDivisionError(folder)

    with pytest.raises(ZeroDivisionError) as raised:
        fail_inside()
    assert os.environ.get("MUSICTF_CACHE") == before
    assert not raised.value.args[0].exists()


def measured(frame, name="x", **changes):
    values = {"name": name, "value": 1.5, "unit": "s", "against": "y, z", "ratio": 3.0, "target": 2.0, "met": True}
    return frame.Measurement(**values | changes)


def test_rows_have_the_columns_of_the_contract(frame, tmp_path):
    settings = frame.Settings(corpus=Folder())
    rows = frame.rows_of("study", [measured(frame), measured(frame, ratio=None, target=None, met=None)], settings)
    frame.replace_rows(tmp_path / "results.csv", "study", rows)
    with open(tmp_path / "results.csv", newline="", encoding="utf-8") as file:
        assert next(csv.reader(file)) == COLUMNS
    first, second = rows_in(tmp_path / "results.csv")
    assert list(first.values())[:7] == ["study/x", "1.5", "s", "y, z", "3", "2", "yes"]
    assert [second[name] for name in ("ratio", "target", "met")] == ["", "", ""]
    assert torch.__version__ in first["machine"]
    assert f"{torch.get_num_threads()} threads" in first["machine"]


def test_a_quick_run_judges_nothing(frame):
    quick = frame.Settings(corpus=Folder(), quick=True)
    assert [row["met"] for row in frame.rows_of("study", [measured(frame)], quick)] == [""]
    full = frame.Settings(corpus=Folder())
    assert [row["met"] for row in frame.rows_of("study", [measured(frame, met=False)], full)] == ["no"]


def test_a_benchmark_replaces_its_own_rows_alone(frame, tmp_path):
    path, settings = tmp_path / "results.csv", frame.Settings(corpus=Folder())
    for benchmark, names in (("study", ("a", "b")), ("heads", ("c",)), ("studying", ("d",)), ("study", ("e",))):
        rows = frame.rows_of(benchmark, [measured(frame, name) for name in names], settings)
        frame.replace_rows(path, benchmark, rows)
    assert [row["name"] for row in rows_in(path)] == ["heads/c", "study/e", "studying/d"]
    assert [file.name for file in tmp_path.iterdir()] == ["results.csv"]


@pytest.mark.parametrize("arguments", [["juggling"], ["heads", "--corpus", "nowhere"], ["--device", "abacus"]])
def test_wrong_input_is_one_line_and_status_2(load, arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        load("run").main(arguments)
    assert stopped.value.code == 2
    assert arguments[-1] in capsys.readouterr().err.splitlines()[-1]


def test_numbers_of_a_quick_run_are_written_only_where_one_says(load, frame, tmp_path, monkeypatch, capsys):
    run = load("run")
    monkeypatch.setattr(run, "HERE", tmp_path)
    monkeypatch.setattr(run, "benchmarks", lambda: {"toy": lambda settings: [measured(frame)]})
    monkeypatch.setattr(run, "corpus", lambda root, quick: Folder())
    assert run.main(["--quick"]) == 0
    assert "mean nothing" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    run.main(["--quick", "--output", str(tmp_path / "quick.csv")])
    assert [path.name for path in tmp_path.iterdir()] == ["quick.csv"]
    run.main([])
    assert [row["met"] for row in rows_in(tmp_path / "results.csv")] == ["yes"]


def test_the_study_is_the_one_of_the_defaults(load):
    study = load("study")
    sizes = study.plan(quick=False)
    assert sizes.size == 225
    readouts, layers, settings = map(list, zip(*sizes.cells(), strict=True))
    assert len(settings) >= 5
    assert set(readouts) == {"class", "sequence", "average"}
    assert sorted(layers) == [0, 1, 2, 3, 4]
    assert (
        sorted(settings) == sizes.probe.settings
    )  # each learning rate as often as any other: they stop at other times


def test_extrapolated_times_multiply_what_was_run(load):
    study = load("study")
    sizes = study.plan(quick=False)
    ours = study.Ours([2.0, 4.0], [5.0, 7.0])
    heads = [study.PlainFit(1.0, steps, seconds) for steps, seconds in ((200, 1.0), (400, 3.0))]
    indexed = [study.PlainFit(1.0, 300, 0.4)]
    cached, whole, audio, apart = study.rows(sizes, ours, heads, indexed, [0.5, 1.5], 2e-3)
    assert (cached.value, cached.ratio, cached.met) == (3.0, 225 * 2.0 / 3.0, True)
    assert "extrapolated from 2 of 225 heads: 450 s" in cached.against
    assert whole.ratio == pytest.approx(225 * 0.4 / 3)
    assert audio.value == 6.0
    assert audio.ratio == pytest.approx(225 * 300 * 1.0 / 6)
    assert "from 2 of 225 heads and 10 of 300 steps" in audio.against
    assert (apart.value, apart.met) == (2e-3, False)


def test_speeds_are_seconds_of_audio_a_second(load):
    seconds = {"ours": 2.0, "loop": 30.0, "forward": 1.5, "decoding": 0.1}
    speed, share, decoding = load("extraction").rows(seconds, 120.0, 3)
    assert (speed.value, speed.ratio, speed.met) == (60.0, 15.0, True)
    assert (share.value, share.met) == (0.75, False)
    assert decoding.value == pytest.approx(1200)


@pytest.mark.filterwarnings("ignore:.*slated for removal in Python:DeprecationWarning")  # what librosa's reader imports
def test_the_loop_encodes_the_excerpts_that_extraction_does(load, frame, corpus, white_noise):
    extraction = load("extraction")
    backbone = frame.Settings(corpus=Folder()).backbone()
    config, layers = FeatureConfig(excerpt_hop=40, precision="float32"), [0, backbone.depth]
    soundfile.write(corpus / "long.wav", white_noise(200_000), backbone.sample_rate, subtype="FLOAT")
    tracks = [Track(track_id="long", audio=corpus / "long.wav")]
    features = extract(backbone, tracks, layers, config)[0]
    kept = extraction.plain_loop(tracks, backbone, layers, config, "cpu")
    assert len(kept) == len(extraction.starts(tracks[0], backbone, config)) == len(features.class_token) > 2
    class_tokens = torch.stack([torch.cat(excerpt[: len(layers)]) for excerpt in kept])
    torch.testing.assert_close(class_tokens.float(), features.class_token, atol=0.02, rtol=0.02)


def toy_split(num_frames=240, seed=0):
    """Frames of one layer whose class hangs on their features, every fourth without a class."""
    generator = np.random.default_rng(seed)
    rows = torch.from_numpy(generator.normal(size=(num_frames, 1, 3))).float()
    targets = (rows[:, 0] + 0.7 * torch.from_numpy(generator.normal(size=(num_frames, 3)))).argmax(dim=1)
    targets[::4] = -1
    return Split([], [], {"sequence": rows}, {"sequence": torch.arange(num_frames)}, targets)


def test_thinning_keeps_frames_that_have_a_class_evenly(load):
    thinned = load("heads").thinned(toy_split(), 60)
    index = thinned.index["sequence"].numpy()
    assert len(index) == len(thinned.targets) == 60
    assert (index % 4 != 0).all()
    assert (thinned.targets >= 0).all()
    assert set(np.diff(index)) == {4}
    assert len(load("heads").thinned(toy_split(), 10_000).targets) == 180


@pytest.mark.parametrize("weight_decay", [1e-1, 1e-3])
def test_scikit_learn_minimises_what_our_heads_do(load, weight_decay):
    heads = load("heads")
    split = heads.thinned(toy_split(), 10_000)
    rows = split.rows["sequence"][split.index["sequence"], 0].double()
    mean, scale = rows.mean(dim=0), rows.std(dim=0)
    head = Head(1, 0, torch.zeros(3, 3), torch.zeros(3), mean.float(), scale.float(), {})
    standardised = (rows - mean) / scale

    def objective(flat):
        parameters = torch.from_numpy(flat).requires_grad_()
        weight, bias = parameters[:9].view(3, 3), parameters[9:]
        loss = torch.nn.functional.cross_entropy(standardised @ weight + bias, split.targets)
        loss = loss + weight_decay / 2 * weight.square().sum()
        loss.backward()
        return loss.item(), parameters.grad.numpy()

    best = minimize(objective, np.zeros(12), jac=True, method="BFGS", options={"gtol": 1e-8})
    wanted = standardised.numpy() @ best.x[:9].reshape(3, 3) + best.x[9:]

    class AsTrack:
        rows, index = split.rows, split.index

    found = heads.logistic_regression(head, split, weight_decay)(AsTrack)

    def centred(logits):
        return logits - logits.mean(axis=1, keepdims=True)

    np.testing.assert_allclose(centred(found), centred(wanted), atol=2e-3)


def test_audio_is_encoded_for_the_readout_that_is_asked_for(load, frame, white_noise):
    plain, backbone = load("plain"), frame.Settings(corpus=Folder()).backbone()
    waveforms = torch.from_numpy(np.stack([white_noise(backbone.num_samples, seed) for seed in (0, 1)]))
    output = backbone(waveforms, [2])
    every = torch.cat([output.class_token[2][:, None], output.sequence[2]], dim=1)
    expected = {
        "sequence": output.sequence[2],
        "class": output.class_token[2][:, None].expand_as(output.sequence[2]),
        "average": every.mean(dim=1, keepdim=True).expand_as(output.sequence[2]),
    }
    for readout, features in expected.items():
        torch.testing.assert_close(plain._embedded(backbone, waveforms, readout, 2), features)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Lightning's advice about workers
def test_a_head_alone_stops_where_ours_does_with_the_same_loss(load):
    """On few frames at a high rate, where validation goes up and down: best weights and patience matter."""
    plain, study, task = load("plain"), load("study"), Chord()
    splits = {"train": toy_split(seed=0), "valid": toy_split(seed=1)}
    splits["valid"].targets[:40] = -1  # batches of validation that know more and less
    losses, steps = {}, {}
    for patience in (1, 3):
        settings = {"learning_rates": [0.3], "weight_decays": [0.0], "steps": 100, "valid_every": 5, "batch_size": 60}
        config = ProbeConfig(**settings, patience=patience)
        ours = fit(task, splits["train"], splits["valid"], [7], config, TrainerConfig(accelerator="cpu"), [0])
        train, valid = study.plain_examples(splits, "sequence", 0, 16384)
        head = plain.PlainHead(3, task.num_outputs, 0, 0.3, 0.0, config.steps)
        order = plain.Shuffled(len(train), 0)
        losses[patience], steps[patience] = plain.head_from_features(train, valid, head, order, config, "cpu")
        assert losses[patience] == pytest.approx(ours["sequence", 0][0].selection["loss"], abs=1e-5)
    assert losses[1] > losses[3] + 1e-3
    assert steps[1] < steps[3] < config.steps


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


def test_another_process_does_not_begin_with_our_memory(load):
    apart = load("apart")
    kept = torch.ones(100_000_000)
    assert apart.in_new_process(apart._resident, "VmHWM") < apart._resident("VmRSS") - 300e6
    assert len(kept) == 100_000_000


def test_memory_is_compared_in_gigabytes(load):
    found = load("apart").smaller("x", 2 * 10**9, 5 * 10**9, "another", 3.0)
    assert (found.value, found.unit, found.ratio, found.met) == (2.0, "GB", 2.5, False)
    assert found.against == "another: 5 GB"


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # Lightning's advice
def test_a_step_in_parts_learns_what_the_whole_does(load):
    micro_batch = load("micro_batch")
    whole, parts, nothing = (micro_batch.one_step(SMALL, 4, part, "cpu") for part in (None, 2, 4))
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


def test_a_run_that_fails_says_why(load, tmp_path):
    with pytest.raises(RuntimeError, match="no pack"):
        load("real_runs").pretrained(tmp_path, 1, [])


@pytest.mark.slow
def test_a_quick_run_of_everything(tmp_path):
    """Both ways of training heads reach the same validation loss, which no shrinking excuses."""
    command = [sys.executable, str(FOLDER / "run.py"), *sorted(NAMES), "--quick", "--output", str(tmp_path / "q.csv")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in rows_in(tmp_path / "q.csv")}
    assert {name.partition("/")[0] for name in rows} == NAMES
    assert {row["met"] for row in rows.values()} == {""}
    assert float(rows["study/loss apart"]["value"]) < 1e-3
    assert all(float(row["ratio"]) > 0 for row in rows.values() if row["ratio"])
    assert abs(float(rows["heads/layer 1"]["value"])) < 0.2
