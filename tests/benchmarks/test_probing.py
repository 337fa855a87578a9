"""Benchmarks of probing: what is compared is the same work on both sides."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from scipy.optimize import minimize

from musictf.datasets.base import Track
from musictf.datasets.folder import Folder
from musictf.distributed import TrainerConfig
from musictf.features.extract import FeatureConfig, extract
from musictf.features.readouts import Split
from musictf.probing.heads import Head
from musictf.probing.linear_probe import ProbeConfig, fit
from musictf.tasks.chord import ChordTask


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
    plain, study, task = load("plain"), load("study"), ChordTask()
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
