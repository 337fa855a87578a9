"""Features and the store: computed once, whatever stands beside them, never from a stale or broken entry."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from feature_extracts import LAYERS, assert_same, entries, extracted, tensors
from safetensors.torch import load_file

from musictf.datasets.base import Track
from musictf.errors import InputError
from musictf.features import excerpting
from musictf.features import extract as module
from musictf.features.extract import FeatureConfig, extract
from musictf.features.store import is_intact
from musictf.models.backbone import random_backbone
from musictf.models.frame_controls import FRAME_CONTROL_CLASSES, MelControl
from musictf.models.vit1d import ViT1DConfig


def copied(track):
    """The same bytes under another name; writing them again gives other bytes, for a float wav holds the time."""
    return Track(track_id="copy", audio=Path(shutil.copyfile(track.audio, track.audio.with_name("copy.wav"))))


def leftovers(cache):
    return [path for path in cache.rglob(".*") if path.is_file()]


def test_the_entry_is_found_by_content_and_not_by_name(backbone, wav, passes):
    extracted(backbone, track := wav())
    count = len(passes)
    extracted(backbone, copied(track))
    assert len(passes) == count


def test_tracks_with_the_same_audio_are_computed_once_and_each_gets_its_features(backbone, wav, passes, cache):
    tracks = [track := wav("a", seed=1), wav("b", seed=2), copied(track)]
    done = []
    first, other, second = extract(backbone, tracks, LAYERS, FeatureConfig(), advance=lambda: done.append(1))
    assert_same(first, second)
    assert not torch.equal(first.sequence, other.sequence)
    assert len(entries(cache)) == 2
    assert len(passes) == 1  # eight excerpts, one batch
    assert len(done) == 3


def test_every_track_advances_once_computed_or_not(backbone, few, cache):
    def advances():
        done = []
        extract(backbone, few, LAYERS, FeatureConfig(), advance=lambda: done.append(1))
        return len(done)

    assert advances() == len(few)
    next(cache.rglob("*.safetensors")).unlink()
    assert advances() == len(few)


@pytest.mark.parametrize(
    "change",
    [{"layers": [0, 2]}, {"excerpt_hop": 31}, {"precision": "float16"}],
    ids=["layers", "hop", "precision"],
)
def test_another_way_of_excerpting_is_another_entry(backbone, wav, passes, cache, change):
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


def test_controls_do_not_share_entries(wav, cache):
    track = wav()
    for control in FRAME_CONTROL_CLASSES.values():
        extracted(control(), track, [0])
    assert len(list(cache.rglob("*.safetensors"))) == len(FRAME_CONTROL_CLASSES)


def test_features_of_another_extractor_version_are_never_used(backbone, wav, passes, monkeypatch):
    track = wav()
    with monkeypatch.context() as patch:
        patch.setattr(module, "EXTRACTOR_VERSION", module.EXTRACTOR_VERSION - 1)
        patch.setattr(excerpting, "edge_taper", lambda num_tokens: torch.arange(1.0, num_tokens + 1))  # how it was then
        stale = tensors(extracted(backbone, track))
    count = len(passes)
    found = extracted(backbone, track)
    assert len(passes) > count
    assert not torch.equal(found.sequence, stale["sequence"])


def test_an_extraction_that_is_broken_off_leaves_what_was_finished_and_nothing_half(backbone, few, cache, elsewhere):
    passes = []

    def break_off(*_):
        passes.append(1)
        if len(passes) == 5:
            raise KeyboardInterrupt

    handle = backbone.register_forward_hook(break_off)
    try:
        with pytest.raises(KeyboardInterrupt):
            extract(backbone, few, LAYERS, FeatureConfig(batch_size=4))
    finally:
        handle.remove()
    before = entries(cache)
    assert 0 < len(before) < len(few)
    assert all(is_intact(path) for path in cache.rglob("*.safetensors"))
    assert leftovers(cache) == []
    extract(backbone, few, LAYERS, FeatureConfig(batch_size=4))
    straight = elsewhere("straight")
    extract(backbone, few, LAYERS, FeatureConfig(batch_size=4))
    assert entries(cache) == entries(straight)
    assert before.items() <= entries(cache).items()


@pytest.mark.parametrize("keep", [0, 5, 0.5, 0.99])
def test_a_truncated_entry_is_computed_again(backbone, wav, cache, passes, keep):
    track = wav()
    extracted(backbone, track)
    (entry,) = cache.rglob("*.safetensors")
    content, count = entry.read_bytes(), len(passes)
    entry.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    extracted(backbone, track)
    assert entry.read_bytes() == content
    assert len(passes) == 2 * count


def test_a_corrupted_header_is_computed_again(backbone, wav, cache):
    track = wav()
    extracted(backbone, track)
    (entry,) = cache.rglob("*.safetensors")
    content = entry.read_bytes()
    entry.write_bytes(content[:8] + b"[" + content[9:])
    extracted(backbone, track)
    assert entry.read_bytes() == content


def test_what_another_process_left_half_written_is_never_used(backbone, wav, cache, passes):
    """A file under the temporary name of an entry, of this very process even, is neither read nor continued."""
    track = wav()
    wanted = tensors(extracted(backbone, track))
    (entry,) = cache.rglob("*.safetensors")
    content, count = entry.read_bytes(), len(passes)
    entry.unlink()
    for name in (f".{entry.name}.{os.getpid()}.1.tmp", f".{entry.name}.tmp", f".{entry.name}"):
        (entry.parent / name).write_bytes(content[: len(content) // 2])
    found = extracted(backbone, track)
    assert len(passes) == 2 * count
    assert all(torch.equal(wanted[name], value) for name, value in tensors(found).items())
    assert entry.read_bytes() == content
    assert len(leftovers(cache)) == 3  # nobody knows whether their process is alive


def test_a_file_that_cannot_be_read_stops_everything_and_is_named(backbone, few, wav, cache):
    bad = wav("bad", waveform=np.full(9 * 16000, np.nan))
    with pytest.raises(InputError, match="bad.wav: holds NaN"):
        extract(backbone, [*few, bad], LAYERS, FeatureConfig())
    assert leftovers(cache) == []
    assert all(is_intact(path) for path in cache.rglob("*.safetensors"))
    assert len(extract(backbone, few, LAYERS, FeatureConfig())) == len(few)


def test_what_another_process_finishes_meanwhile_is_left_out(backbone, wav, cache, passes, monkeypatch):
    tracks = [wav("a", seed=1), wav("b", seed=2)]
    extract(backbone, tracks[:1], LAYERS, FeatureConfig())
    (first,) = cache.rglob("*.safetensors")
    kept = first.rename(first.with_suffix(".kept"))
    count = len(passes)
    plan = excerpting.excerpt_plan

    def finish_meanwhile(backbone, path, *arguments):
        """While b is being read, the other process finishes a."""
        kept.rename(first)
        return plan(backbone, path, *arguments)

    monkeypatch.setattr(excerpting, "_rotated", lambda missing: dict(reversed(missing.items())))
    monkeypatch.setattr(excerpting, "excerpt_plan", finish_meanwhile)
    done = []
    found = extract(backbone, tracks, LAYERS, FeatureConfig(), advance=lambda: done.append(1))
    assert len(passes) == count + 1
    assert len(done) == len(found) == 2


@pytest.mark.parametrize(("rank", "first"), [(0, 0), (1, 2), (2, 4), (3, 6)])
def test_each_rank_starts_at_a_share_of_its_own(backbone, wav, cache, monkeypatch, rank, first):
    tracks = [wav(f"t{k}", seconds=2.0, seed=k) for k in range(8)]
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", str(rank))
    finished = []
    original = module.EntryWriter.finish

    def finish(self):
        finished.append(self.path)
        original(self)

    monkeypatch.setattr(module.EntryWriter, "finish", finish)
    found = extract(backbone, tracks, LAYERS, FeatureConfig())
    assert len(found) == len(finished) == 8  # alone it does all of them
    extractor = module.Extractor(finished[0].parent, {})
    assert [path.name for path in finished] == [extractor.entry(tracks[(first + k) % 8].audio).name for k in range(8)]


def test_features_that_vanish_while_they_are_wanted_are_an_error(backbone, wav, monkeypatch):
    monkeypatch.setattr(module, "_compute", lambda *arguments: None)
    with pytest.raises(InputError, match="deleted from the feature store"):
        extracted(backbone, wav())


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


def test_a_hop_that_leaves_gaps_is_refused(wav):
    with pytest.raises(InputError, match="leaves gaps"):
        extracted(MelControl(), wav(seconds=2.0), [0], excerpt_hop=126)
