"""Features: every token once, at its time, the same whatever the batch, and never from a stale or broken entry."""

from dataclasses import fields

import numpy as np
import pytest
import soundfile
import torch
from feature_extracts import LAYERS, assert_same, entries, extracted, tensors

from musictf.audio.io import read_excerpt
from musictf.errors import InputError
from musictf.features import excerpting
from musictf.features.excerpting import edge_taper, excerpt_starts
from musictf.features.extract import FeatureConfig, TrackFeatures, extract
from musictf.models.backbone import random_backbone
from musictf.models.frame_controls import FRAME_CONTROL_CLASSES, MelControl
from musictf.models.vit1d import ViT1DConfig

EXCERPT, HOP, SOURCE_RATE = 64000, 512, 22050


@pytest.mark.parametrize("num_samples", [600, 24000, 63999, 64000, 64001, 64511, 64512, 96256, 100000, 500123])
@pytest.mark.parametrize("hop", [1, 20, 63, 125, 126])
def test_excerpts_start_on_the_token_grid_and_cover_every_token(num_samples, hop):
    starts = excerpt_starts(num_samples, EXCERPT, hop * HOP, HOP)
    assert starts == sorted(set(starts))
    assert all(start % HOP == 0 for start in starts)
    covered = {k for start in starts for k in range(start // HOP, min(start + EXCERPT, num_samples) // HOP + 1)}
    assert covered == set(range(num_samples // HOP + 1))
    assert all(start + HOP <= num_samples or start == 0 for start in starts)


def test_an_edge_counts_less_than_the_middle_and_never_nothing():
    taper = edge_taper(126)
    assert taper.min() == taper[0] == taper[-1] == 1
    assert taper.max() == taper[62] == taper[63] == 63
    torch.testing.assert_close(taper, taper.flip(0))


@pytest.mark.parametrize(("seconds", "hop"), [(9.3, 63), (12.0, 40), (4.01, 63)])
def test_the_stitched_sequence_is_the_weighted_mean_of_all_excerpts_that_see_a_token(backbone, wav, seconds, hop):
    track = wav(seconds=seconds)
    found = extracted(backbone, track, excerpt_hop=hop)
    waveform, _ = soundfile.read(track.audio, dtype="float32")
    num_tokens = len(waveform) // HOP + 1
    collected = [[] for _ in range(num_tokens)]
    first, is_last = 0, False
    while not is_last:
        is_last = first * HOP + EXCERPT >= len(waveform)
        if is_last:  # on the grid, and to the end
            first = -(-(len(waveform) - EXCERPT) // HOP)
        excerpt = np.zeros(EXCERPT, dtype=np.float32)
        part = waveform[first * HOP : first * HOP + EXCERPT]
        excerpt[: len(part)] = part
        with torch.no_grad():
            output = backbone(torch.from_numpy(excerpt)[None], LAYERS)
        count = min(126, num_tokens - first)
        for k in range(count):
            value = torch.stack([output.sequence[layer][0, k] for layer in LAYERS])
            collected[first + k].append((1 + min(k, count - 1 - k), value))
        first += hop
    assert len(found.sequence) == len(found.times) == num_tokens
    for k, seen in enumerate(collected):
        wanted = sum(weight * value for weight, value in seen) / sum(weight for weight, _ in seen)
        torch.testing.assert_close(found.sequence[k], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("seconds", "num_excerpts"), [(1.5, 1), (4.0, 1), (4.04, 2)])
def test_short_tracks_and_tracks_of_exactly_one_excerpt(backbone, wav, seconds, num_excerpts):
    track = wav(seconds=seconds)
    found = extracted(backbone, track)
    assert found.class_token.shape == (num_excerpts, 3, 16)
    assert found.sequence.shape == (int(seconds * 16000) // HOP + 1, 3, 16)
    assert float(found.seconds) == pytest.approx(seconds)
    if num_excerpts == 1:
        waveform, _ = soundfile.read(track.audio, dtype="float32")
        with torch.no_grad():
            output = backbone(torch.from_numpy(waveform)[None], LAYERS)
        torch.testing.assert_close(found.sequence[:, 2], output.sequence[2][0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.class_token[0, 2], output.class_token[2][0], rtol=1e-4, atol=1e-5)
        assert float(found.excerpt_times[0]) == pytest.approx(seconds / 2)


def test_a_track_shorter_than_a_window_is_an_error(backbone, wav):
    with pytest.raises(InputError, match="too short for one window"):
        extracted(backbone, wav(seconds=0.05))


def test_average_is_the_mean_of_class_and_sequence_tokens_together(backbone, wav):
    track = wav(seconds=4.0)
    found = extracted(backbone, track)
    together = torch.cat([found.class_token, found.sequence])  # one excerpt: 1 + 126 tokens
    assert together.shape[0] == 127
    torch.testing.assert_close(found.average[0], together.mean(dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.sequence_mean[0], found.sequence.mean(dim=0), rtol=1e-4, atol=1e-5)


def test_means_are_over_the_tokens_that_the_track_has(backbone, wav):
    """The last excerpt reaches beyond the track: its last token is of silence, and counts nowhere."""
    track = wav(seconds=6.3)
    found = extracted(backbone, track)
    waveform, _ = soundfile.read(track.audio, dtype="float32")
    num_tokens, first = len(waveform) // HOP + 1, -(-(len(waveform) - EXCERPT) // HOP)
    assert first + 126 == num_tokens + 1
    excerpt = np.zeros(EXCERPT, dtype=np.float32)
    excerpt[: len(waveform) - first * HOP] = waveform[first * HOP :]
    with torch.no_grad():
        output = backbone(torch.from_numpy(excerpt)[None], LAYERS)
    for column, layer in enumerate(LAYERS):
        tokens = output.sequence[layer][0, :125]
        together = torch.cat([output.class_token[layer], tokens])
        torch.testing.assert_close(found.class_token[-1, column], output.class_token[layer][0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.sequence_mean[-1, column], tokens.mean(dim=0), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.average[-1, column], together.mean(dim=0), rtol=1e-5, atol=1e-6)


def test_the_spectrogram_stitched_over_a_track_is_the_spectrogram_of_the_track(wav):
    mel, track = MelControl(), wav(seconds=31.744)  # a whole number of tokens
    found = extracted(mel, track, [0])
    waveform, _ = soundfile.read(track.audio, dtype="float32")
    whole = mel.front_end(torch.from_numpy(waveform)[None])[0].mT
    stitched = found.sequence[:, 0]
    assert stitched.shape == whole.shape
    np.testing.assert_array_equal(found.times.numpy(), np.arange(len(whole)) * 512 / 16000)
    # The outermost token of an excerpt sees a mirrored edge, and weighs 1 against 63.
    edges = {
        k for start in excerpt_starts(len(waveform), EXCERPT, 63 * HOP, HOP) for k in (start // HOP, start // HOP + 125)
    }
    inner = [k for k in range(len(whole)) if k not in edges]
    torch.testing.assert_close(stitched[inner], whole[inner], rtol=0, atol=2e-3)
    assert (stitched - whole).abs().max() < 1.0


def test_a_click_deep_in_a_track_is_found_at_its_time(wav):
    token = 2101  # at 67.232 s
    waveform = 1e-4 * np.random.default_rng(0).normal(size=72 * 16000)
    waveform[token * HOP] += 1.0
    found = extracted(MelControl(), wav(waveform=waveform), [0])
    level = found.sequence[:, 0].mean(dim=1)
    assert int(level.argmax()) == token
    assert float(found.times[token]) == token * HOP / 16000 == 67.232
    torch.testing.assert_close(level[token - 1], level[token + 1], atol=3.0, rtol=0)  # as near on either side


def test_excerpt_times_are_the_centres_of_excerpts(backbone, wav):
    found = extracted(backbone, wav(seconds=12.0), [0], excerpt_hop=63)
    starts = excerpt_starts(192000, EXCERPT, 63 * HOP, HOP)
    np.testing.assert_allclose(found.excerpt_times, [start / 16000 + 2.0 for start in starts])


@pytest.mark.parametrize("batch_size", [1, 3])
def test_features_do_not_depend_on_the_batch_size(backbone, wav, elsewhere, batch_size):
    track = wav(seconds=13.0)
    found = []
    for size in (16, batch_size):
        elsewhere(f"batch{size}")
        found.append(extracted(backbone, track, batch_size=size))
    for field in fields(TrackFeatures):
        torch.testing.assert_close(*(getattr(one, field.name) for one in found), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["float16", "float32"])
@pytest.mark.parametrize("batch_size", [3, 16])
def test_not_one_bit_depends_on_the_neighbours_in_a_batch_or_on_the_order(few, elsewhere, precision, batch_size):
    backbone = random_backbone(ViT1DConfig(depth=2, embed_dim=48, num_heads=3))
    config = FeatureConfig(precision=precision, batch_size=batch_size)
    store = elsewhere("together")
    wanted = [tensors(found) for found in extract(backbone, few, LAYERS, config)]
    stored = entries(store)
    assert len(stored) == len(few)
    store = elsewhere("backwards")
    extract(backbone, few[::-1], LAYERS, config)
    assert entries(store) == stored
    store = elsewhere("alone")
    for track, tensor in zip(few, wanted, strict=True):
        (found,) = extract(backbone, [track], LAYERS, config)
        assert all(torch.equal(tensor[name], value) for name, value in tensors(found).items())
    assert entries(store) == stored


def test_a_batch_always_has_the_same_size_whatever_is_left_for_it(backbone, few):
    """A product of another shape may round in another way, here or on another machine."""
    shapes = []
    handle = backbone.register_forward_pre_hook(lambda _, arguments: shapes.append(tuple(arguments[0].shape)))
    extract(backbone, few, LAYERS, FeatureConfig(batch_size=6))
    handle.remove()
    # 4, 7, 1, 3 and 5 excerpts: three batches and a part of one
    assert shapes.count((1, 32_000)) == 2  # the tracks shorter than an excerpt, each alone
    whole = [shape for shape in shapes if shape != (1, 32_000)]
    assert whole == [(6, EXCERPT)] * 4


def test_features_come_in_the_order_of_the_tracks(backbone, few):
    for tracks in (few, few[::-1], few[3:]):
        found = extract(backbone, tracks, LAYERS, FeatureConfig())
        seconds = [soundfile.info(track.audio).duration for track in tracks]
        assert [float(features.seconds) for features in found] == pytest.approx(seconds)


@pytest.mark.parametrize("stretch", [1, 3])
def test_not_one_bit_depends_on_how_much_is_read_at_once(backbone, few, elsewhere, monkeypatch, stretch):
    wanted = elsewhere("default")
    extract(backbone, few, LAYERS, FeatureConfig())
    store = elsewhere("other")
    monkeypatch.setattr(excerpting, "_EXCERPTS_PER_READ", stretch)
    extract(backbone, few, LAYERS, FeatureConfig())
    assert entries(store) == entries(wanted)


def test_a_long_track_of_another_rate_is_stitched_as_the_whole(wav):
    """Many stretches and batches, read piece by piece and resampled."""
    track = wav(waveform=0.1 * np.random.default_rng(0).normal(size=150 * SOURCE_RATE), sample_rate=SOURCE_RATE)
    mel, num_samples = MelControl(), 150 * 16000
    found = extracted(mel, track, [0])
    whole = mel.front_end(torch.from_numpy(read_excerpt(track.audio, 0, num_samples, 16000))[None])[0].mT
    assert len(found.sequence) == len(whole) == num_samples // HOP + 1
    starts = [start // HOP for start in excerpt_starts(num_samples, EXCERPT, 63 * HOP, HOP)]
    assert len(starts) > 4 * excerpting._EXCERPTS_PER_READ
    # The outermost token of an excerpt sees a mirrored edge; the last one ends on a part of a hop.
    edges = {*starts, len(whole) - 1} | {start + 125 for start in starts}
    inner = [k for k in range(len(whole)) if k not in edges]
    torch.testing.assert_close(found.sequence[inner, 0], whole[inner], rtol=0, atol=2e-3)


@pytest.mark.parametrize("kind", FRAME_CONTROL_CLASSES)
def test_controls_are_extracted_like_any_backbone(kind, wav):
    control = FRAME_CONTROL_CLASSES[kind]()
    found = extracted(control, wav(seconds=9.0), [0])
    assert found.sequence.shape == (9 * 16000 // HOP + 1, 1, control.embed_dim)
    assert found.class_token.shape == (4, 1, control.embed_dim)
    torch.testing.assert_close(found.class_token[0], found.sequence_mean[0])  # the mean over time, both


def test_the_second_call_reads_what_the_first_has_written(backbone, wav, passes):
    track = wav()
    first = extracted(backbone, track)
    count = len(passes)
    assert count > 0
    second = extracted(backbone, track)
    assert len(passes) == count
    assert_same(first, second)


def test_embeddings_are_kept_in_half_precision_by_default(backbone, wav, elsewhere):
    track = wav()
    exact = extracted(backbone, track)
    (found,) = extract(backbone, [track], LAYERS, FeatureConfig())
    for name in ("class_token", "average", "sequence_mean", "sequence"):
        assert torch.equal(getattr(found, name), getattr(exact, name).half())
    assert found.times.dtype == found.excerpt_times.dtype == found.seconds.dtype == torch.float64
