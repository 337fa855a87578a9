"""Curves of attention maps: what they are, when they are, and that reading them changes nothing."""

import numpy as np
import pytest
import torch

from musictf.audio.io import read_excerpt
from musictf.datasets.base import Track
from musictf.errors import InputError
from musictf.features.extract import FeatureConfig
from musictf.features.store import store_folder
from musictf.inspection.attention_curves import onset_curves, read_curves, track_curves
from musictf.models.backbone import Backbone, random_backbone
from musictf.models.frame_controls import MelControl
from musictf.models.vit1d import ViT1DConfig
from musictf.results.names import ATTENTION_CURVES

CONFIG = FeatureConfig(batch_size=4)
RECEIVED, CLASS_ROW, CHANGE = range(3)


def maps(seed=0, shape=(2, 3, 9, 9)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).softmax(dim=-1)


def plainly(attention):
    """The three curves of one map (K, K), in loops."""
    tokens = range(1, len(attention))
    number = len(tokens)
    received = [sum(float(attention[q, k]) for q in tokens) for k in tokens]
    class_row = [number * float(attention[0, k]) for k in tokens]
    steps = {q: 0.5 * sum(abs(float(attention[q + 1, k] - attention[q, k])) for k in tokens) for q in tokens[:-1]}
    change = []
    for q in tokens:
        beside = [steps[s] for s in (q - 1, q) if s in steps]
        change.append(sum(beside) / len(beside))
    return np.array([received, class_row, change])


def noise(seconds, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * 16_000))


def test_curves_equal_those_of_plain_loops():
    attention = maps()
    found = onset_curves(attention)
    assert found.shape == (2, 3, len(ATTENTION_CURVES), 8)
    for b in range(2):
        for h in range(3):
            np.testing.assert_allclose(found[b, h], plainly(attention[b, h]), atol=1e-6)


def test_the_class_column_and_for_two_curves_the_class_row_are_left_out():
    attention = maps()
    before = onset_curves(attention)
    attention[:, :, 1:, 0] = 7.0  # what sequence tokens pay to the class token
    attention[:, :, 0, 0] = 7.0
    torch.testing.assert_close(onset_curves(attention), before)
    attention[:, :, 0, 1:] = 5.0
    after = onset_curves(attention)
    torch.testing.assert_close(after[:, :, [RECEIVED, CHANGE]], before[:, :, [RECEIVED, CHANGE]])
    assert (after[:, :, CLASS_ROW] == 5.0 * 8).all()


def test_even_attention_is_an_even_share_everywhere():
    found = onset_curves(torch.full((1, 1, 6, 6), 0.2) * torch.tensor([0.0, 1, 1, 1, 1, 1]))
    torch.testing.assert_close(found[0, 0, [RECEIVED, CLASS_ROW]], torch.ones(2, 5))
    assert (found[0, 0, CHANGE] == 0).all()


def test_a_token_that_all_attend_to_stands_out_and_nothing_changes():
    attention = torch.zeros(1, 1, 11, 11)
    attention[..., 4] = 1.0
    received, class_row, change = onset_curves(attention)[0, 0]
    expected = torch.zeros(10)
    expected[3] = 10.0  # key 4 is sequence token 3
    assert torch.equal(received, expected)
    assert torch.equal(class_row, expected)
    assert (change == 0).all()


def test_change_is_highest_on_both_sides_of_a_step_in_attention():
    attention = torch.zeros(1, 1, 11, 11)
    attention[:, :, :6, 1] = 1.0
    attention[:, :, 6:, 2] = 1.0  # from sequence token 5 on
    change = onset_curves(attention)[0, 0, CHANGE]
    assert torch.equal(change, torch.tensor([0, 0, 0, 0, 0.5, 0.5, 0, 0, 0, 0]))


def test_exact_and_fused_attention_give_equal_tokens():
    backbone = random_backbone(ViT1DConfig(depth=3, embed_dim=32, num_heads=4), seed=3)
    for parameter in backbone.encoder.parameters():
        parameter.data *= 3  # so that maps are far from even
    waveform = torch.from_numpy(np.stack([noise(4.0), noise(4.0, 1)])).float()
    with torch.inference_mode():
        exact, fused = (backbone(waveform, range(4), attention=attention) for attention in (True, False))
    assert sorted(exact.attention) == [1, 2, 3]
    assert not fused.attention
    for layer in range(4):
        torch.testing.assert_close(exact.sequence[layer], fused.sequence[layer], atol=1e-5, rtol=0)
        torch.testing.assert_close(exact.class_token[layer], fused.class_token[layer], atol=1e-5, rtol=0)
    for weights in exact.attention.values():
        assert weights.std() > 1e-4
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))


def test_curves_change_no_weight_and_leave_eval_mode(write_wav):
    backbone = Backbone(ViT1DConfig(depth=2, embed_dim=16, num_heads=2)).train()
    before = backbone.digest()
    track_curves(backbone, [write_wav("weights", noise(5.0))], CONFIG)
    assert backbone.digest() == before
    assert not backbone.training
    assert all(parameter.grad is None for parameter in backbone.parameters())


@pytest.mark.parametrize("token", [40, 70, 133, 240])
def test_a_click_stands_at_its_own_time_wherever_excerpts_meet(planted, write_wav, make_clicks, token):
    time = token * 512 / 16_000
    track = write_wav(f"one_click{token}", make_clicks([time - 0.01], 9.0))  # its middle lies on the token
    (path,) = track_curves(planted, [track], CONFIG)
    found = read_curves(path)
    assert found.values.shape == (9 * 16_000 // 512 + 1, 2, 4, 3)
    for curve in (RECEIVED, CLASS_ROW):
        assert found.times[found.values[:, 0, 2, curve].argmax()] == time


def test_times_are_whole_samples_divided_once(small, write_wav):
    (path,) = track_curves(small, [write_wav("times", noise(9.3))], CONFIG)
    found = read_curves(path)
    assert np.array_equal(found.times, np.arange(len(found.times)) * 512 / 16_000)
    assert len(found.times) == len(found.values) == round(9.3 * 16_000) // 512 + 1


def directly(backbone, track, seconds):
    waveform = torch.from_numpy(read_excerpt(track.audio, 0, round(seconds * 16_000), 16_000))[None]
    with torch.inference_mode():
        attention = backbone(waveform, attention=True).attention
    return torch.stack([onset_curves(attention[layer])[0] for layer in (1, 2)]).permute(3, 0, 1, 2).numpy()


@pytest.mark.parametrize("seconds", [4.0, 1.5, 0.1])
def test_curves_of_a_short_track_are_those_of_the_backbone(small, write_wav, seconds):
    track = write_wav(f"short{seconds}", noise(seconds))
    (path,) = track_curves(small, [track], CONFIG)
    np.testing.assert_allclose(read_curves(path).values, directly(small, track, seconds), atol=1e-5)


def test_excerpts_meet_in_a_mean_that_trusts_their_edges_less(small, write_wav):
    track = write_wav("two", noise(6.016))  # 189 tokens: excerpts at 0 and 63
    (path,) = track_curves(small, [track], CONFIG)
    waveform = torch.from_numpy(read_excerpt(track.audio, 0, 96_256, 16_000))
    with torch.inference_mode():
        parts = [small(waveform[s : s + 64_000][None], attention=True).attention[2] for s in (0, 63 * 512)]
    first, second = (onset_curves(part)[0].permute(2, 0, 1).numpy() for part in parts)
    taper = np.minimum(np.arange(1, 127), np.arange(126, 0, -1))[:, None, None]
    total, weight = np.zeros((189, 2, 3)), np.zeros((189, 1, 1))
    for start, rows in ((0, first), (63, second)):
        total[start : start + 126] += taper * rows
        weight[start : start + 126] += taper
    np.testing.assert_allclose(read_curves(path).values[:, 1], total / weight, atol=1e-4)


def test_tracks_do_not_mix_and_come_in_order(small, write_wav):
    lengths = [9.0, 2.0, 5.5, 12.1]
    tracks = [write_wav(f"several{k}", noise(seconds, k)) for k, seconds in enumerate(lengths)]
    done = []
    together = track_curves(small, tracks, CONFIG, advance=lambda: done.append(1))
    assert len(done) == len(tracks)
    kept = [read_curves(path).values.copy() for path in together]
    for track, path, values in zip(tracks, together, kept, strict=True):
        path.unlink()
        assert track_curves(small, [track], CONFIG) == [path]
        np.testing.assert_allclose(read_curves(path).values, values, atol=1e-5)


def test_replacement_audio_of_several_tracks_is_computed_once(small, write_wav):
    track = write_wav("shared", noise(5.0, 9))
    paths = track_curves(small, [track] * 3, CONFIG)
    assert len(paths) == 3
    assert len(set(paths)) == 1


def test_an_interrupted_track_leaves_no_file(write_wav):
    backbone = random_backbone(ViT1DConfig(depth=1, embed_dim=8, num_heads=2), seed=5)
    passes = []

    def stop(*_):
        passes.append(1)
        if len(passes) == 2:
            raise KeyboardInterrupt

    handle = backbone.register_forward_hook(stop)
    tracks = [write_wav("long", noise(30.0, 3))]
    before = set(store_folder().rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        track_curves(backbone, tracks, CONFIG)
    handle.remove()
    new = {path.name for path in set(store_folder().rglob("*")) - before if path.is_file()}
    assert new <= {"about.json"}
    assert read_curves(track_curves(backbone, tracks, CONFIG)[0]).values.shape[0] == 30 * 16_000 // 512 + 1


def test_one_token_and_no_attention_are_refused(small, write_wav):
    short = 64 / 16_000
    with pytest.raises(InputError, match="short"):
        track_curves(small, [write_wav("one_token", noise(short))], CONFIG)
    with pytest.raises(InputError, match="no attention"):
        track_curves(MelControl(), [write_wav("mel", noise(1.0))], CONFIG)


def test_a_pruned_entry_is_named(tmp_path):
    with pytest.raises(InputError, match="run again"):
        read_curves(tmp_path / "gone.safetensors")


def test_another_hop_or_backbone_is_another_entry(small, write_wav):
    track = write_wav("keys", noise(5.0, 4))
    other = random_backbone(ViT1DConfig(depth=2, embed_dim=16, num_heads=2), seed=9)
    paths = [
        track_curves(small, [track], CONFIG),
        track_curves(other, [track], CONFIG),
        track_curves(small, [track], FeatureConfig(batch_size=4, excerpt_hop=31)),
    ]
    assert len({path for (path,) in paths}) == 3
    assert isinstance(track, Track)
