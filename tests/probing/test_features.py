"""Features: every token once, at its time, the same whatever the batch, and never from a stale or broken entry."""

import os
from dataclasses import fields

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file

from musictf.errors import InputError
from musictf.models.backbone import MelBackbone, random_backbone
from musictf.models.vit1d import ViT1DConfig
from musictf.probing import features as module
from musictf.probing.features import (
    FeatureConfig,
    TrackFeatures,
    edge_taper,
    excerpt_starts,
    extract,
    track_features,
)

LAYERS = [0, 1, 2]
EXCERPT, HOP = 64000, 512


@pytest.fixture
def passes(backbone):
    """Counts the batches that go through the backbone."""
    seen = []
    handle = backbone.register_forward_hook(lambda *arguments: seen.append(1))
    yield seen
    handle.remove()


def extracted(backbone, track, layers=LAYERS, **config):
    (found,) = extract(backbone, [track], layers, FeatureConfig(**config))
    return found


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
    found = track_features(backbone, track.audio, LAYERS, FeatureConfig(excerpt_hop=hop))
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
    for k, entries in enumerate(collected):
        wanted = sum(weight * value for weight, value in entries) / sum(weight for weight, _ in entries)
        torch.testing.assert_close(found.sequence[k], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("seconds", "num_excerpts"), [(1.5, 1), (4.0, 1), (4.04, 2)])
def test_short_tracks_and_tracks_of_exactly_one_excerpt(backbone, wav, seconds, num_excerpts):
    track = wav(seconds=seconds)
    found = track_features(backbone, track.audio, LAYERS, FeatureConfig())
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
        track_features(backbone, wav(seconds=0.05).audio, LAYERS, FeatureConfig())


def test_average_is_the_mean_of_class_and_sequence_tokens_together(backbone, wav):
    track = wav(seconds=4.0)
    found = track_features(backbone, track.audio, LAYERS, FeatureConfig())
    together = torch.cat([found.class_token, found.sequence])  # one excerpt: 1 + 126 tokens
    assert together.shape[0] == 127
    torch.testing.assert_close(found.average[0], together.mean(dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.sequence_mean[0], found.sequence.mean(dim=0), rtol=1e-4, atol=1e-5)


def test_the_spectrogram_stitched_over_a_track_is_the_spectrogram_of_the_track(wav):
    mel, track = MelBackbone(), wav(seconds=31.744)  # a whole number of tokens
    found = track_features(mel, track.audio, [0], FeatureConfig())
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
    found = track_features(MelBackbone(), wav(waveform=waveform).audio, [0], FeatureConfig())
    level = found.sequence[:, 0].mean(dim=1)
    assert int(level.argmax()) == token
    assert float(found.times[token]) == token * HOP / 16000 == 67.232
    torch.testing.assert_close(level[token - 1], level[token + 1], atol=3.0, rtol=0)  # as near on either side


def test_excerpt_times_are_the_centres_of_excerpts(backbone, wav):
    found = track_features(backbone, wav(seconds=12.0).audio, [0], FeatureConfig(excerpt_hop=63))
    starts = excerpt_starts(192000, EXCERPT, 63 * HOP, HOP)
    np.testing.assert_allclose(found.excerpt_times, [start / 16000 + 2.0 for start in starts])


@pytest.mark.parametrize("batch_size", [1, 3])
def test_features_do_not_depend_on_the_batch_size(backbone, wav, batch_size):
    track = wav(seconds=13.0)
    many, few = (track_features(backbone, track.audio, LAYERS, FeatureConfig(batch_size=b)) for b in (16, batch_size))
    for field in fields(TrackFeatures):
        torch.testing.assert_close(getattr(many, field.name), getattr(few, field.name), rtol=1e-4, atol=1e-5)


def test_the_second_call_reads_what_the_first_has_written(backbone, wav, passes):
    track = wav()
    first = extracted(backbone, track)
    count = len(passes)
    assert count > 0
    second = extracted(backbone, track)
    assert len(passes) == count
    for field in fields(TrackFeatures):
        assert torch.equal(getattr(first, field.name), getattr(second, field.name))
    assert second.sequence.dtype == torch.float16
    assert second.times.dtype == torch.float64


def test_the_entry_is_found_by_content_and_not_by_name(backbone, wav, passes):
    extracted(backbone, wav("a", seed=1))
    count = len(passes)
    extracted(backbone, wav("another name", seed=1))
    assert len(passes) == count


@pytest.mark.parametrize(
    "change",
    [{"layers": [0, 2]}, {"excerpt_hop": 31}, {"precision": "float32"}],
    ids=["layers", "hop", "precision"],
)
def test_another_way_of_cutting_is_another_entry(backbone, wav, passes, cache, change):
    track = wav()
    extracted(backbone, track)
    count = len(passes)
    extracted(backbone, track, **change)
    assert len(passes) > count
    assert len(list(cache.rglob("*.safetensors"))) == 2


def test_other_audio_under_the_same_name_is_another_entry(backbone, wav, passes):
    track = wav(seed=1)
    first = extracted(backbone, track)
    os.utime(track.audio, ns=(1, 1))
    count = len(passes)
    second = extracted(backbone, wav(seed=2))
    assert len(passes) > count
    assert not torch.equal(first.sequence, second.sequence)


def test_one_changed_weight_is_another_entry(wav, cache):
    shape = ViT1DConfig(depth=2, embed_dim=16, num_heads=2)
    track, changed = wav(), random_backbone(shape)
    extracted(random_backbone(shape), track)
    with torch.no_grad():
        next(changed.encoder.parameters()).view(-1)[0] += 1e-3
    extracted(changed, track)
    assert len(list(cache.rglob("*.safetensors"))) == 2


def test_another_extractor_version_is_another_entry(backbone, wav, passes, monkeypatch):
    track = wav()
    extracted(backbone, track)
    count = len(passes)
    monkeypatch.setattr(module, "EXTRACTOR_VERSION", -1)
    extracted(backbone, track)
    assert len(passes) > count


def test_a_half_written_entry_is_never_used(backbone, wav, cache, monkeypatch):
    track = wav()

    def break_off(tensors, path):
        with open(path, "wb") as file:
            file.write(b"half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_file", break_off)
        with pytest.raises(KeyboardInterrupt):
            extracted(backbone, track)
    assert list(cache.rglob("*.safetensors")) == []
    found = extracted(backbone, track)
    wanted = track_features(backbone, track.audio, LAYERS, FeatureConfig())
    torch.testing.assert_close(found.sequence.float(), wanted.sequence, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("keep", [0, 5, 0.5, 0.99])
def test_a_damaged_entry_is_an_error_that_names_it(backbone, wav, cache, keep):
    track = wav()
    extracted(backbone, track)
    (entry,) = cache.rglob("*.safetensors")
    content = entry.read_bytes()
    entry.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(InputError, match=f"{entry.name}: damaged"):
        extracted(backbone, track)


def test_an_entry_holds_the_embeddings_in_the_asked_precision_and_times_in_full(backbone, wav, cache):
    extracted(backbone, wav(), precision="float32")
    (entry,) = cache.rglob("*.safetensors")
    kinds = {name: tensor.dtype for name, tensor in load_file(str(entry)).items()}
    assert {kinds[name] for name in ("class_token", "average", "sequence_mean", "sequence")} == {torch.float32}
    assert {kinds[name] for name in ("times", "excerpt_times", "seconds")} == {torch.float64}


def test_extraction_leaves_the_backbone_as_it_was(backbone, wav):
    digest = backbone.digest()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    extracted(backbone, wav())
    assert backbone.digest() == digest
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.state_dict().items())
    assert not backbone.training


@pytest.mark.parametrize("values", [{"precision": "bfloat16"}, {"excerpt_hop": 0}, {"batch_size": 0}])
def test_values_that_make_no_sense_are_refused(values):
    with pytest.raises(InputError, match="features"):
        FeatureConfig(**values)


def test_a_hop_that_leaves_gaps_is_refused(tmp_path):
    path = tmp_path / "noise.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(32000), 16000)
    with pytest.raises(InputError, match="leaves gaps"):
        track_features(MelBackbone(), path, [0], FeatureConfig(excerpt_hop=126))
