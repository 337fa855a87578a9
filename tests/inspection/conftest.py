"""A backbone in which one head attends to clicks, sounds with known onsets, and contexts to inspect in."""

import json

import numpy as np
import pytest
import soundfile
import torch

from musictf.audio.spectrogram import LogMelConfig
from musictf.datasets.base import Track
from musictf.features.extract import FeatureConfig
from musictf.inspection.context import InspectionContext
from musictf.inspection.inspected_models import Corpus, InspectedModel
from musictf.inspection.inspection_rows import InspectionRows
from musictf.models.backbone import Backbone, random_backbone
from musictf.models.vit1d import ViT1DConfig

RATE = 16_000
PITCH = 2000.0  # hertz, of the clicks
PLANTED_LAYER, PLANTED_HEAD = 1, 2


def clicks(onsets, seconds, seed=0):
    """Tones of one frame's length in faint noise, each beginning at an onset."""
    waveform = 1e-3 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    burst = 0.5 * np.sin(2 * np.pi * PITCH * np.arange(round(0.02 * RATE)) / RATE)
    for onset in onsets:
        start = round(onset * RATE)
        waveform[start : start + len(burst)] += burst[: len(waveform) - start]
    return waveform


def irregular(seconds, seed):
    """Onsets in seconds with gaps of .3 to .9 s."""
    gaps = np.random.default_rng(seed).uniform(0.3, 0.9, round(seconds / 0.3))
    onsets = np.cumsum(gaps)
    return onsets[onsets < seconds - 0.2]


@pytest.fixture(scope="session")
def make_clicks():
    """Maker of waveforms: (onsets, seconds, seed) -> (N,)."""
    return clicks


@pytest.fixture(scope="session")
def small():
    return random_backbone(ViT1DConfig(depth=2, embed_dim=16, num_heads=2))


@pytest.fixture(scope="session")
def planted():
    """All heads attend evenly but head 2 of block 1, whose keys grow with the energy in the band of the clicks."""
    backbone = Backbone(ViT1DConfig(depth=2, embed_dim=16, num_heads=4), provenance={})
    encoder, bands = backbone.encoder, LogMelConfig().n_mels
    loud = torch.zeros(1, bands, 1)
    tone = torch.sin(2 * torch.pi * PITCH * torch.arange(4096) / RATE)[None]
    with torch.no_grad():
        loud = backbone.front_end(tone)[0].mean(dim=1).argmax()
        encoder.pos_embed.zero_()
        encoder.class_token.zero_()
        encoder.frame_proj.weight.zero_()
        encoder.frame_proj.bias.zero_()
        encoder.frame_proj.bias[1:4] = 3.0  # keeps the norm of a block from blowing up what is small
        encoder.frame_proj.weight[0, loud] = 1.0
        for block in encoder.blocks:
            block.attn.qkv.weight[: 2 * 16] = 0
            block.attn.qkv.bias[: 2 * 16] = 0
        qkv = encoder.blocks[PLANTED_LAYER - 1].attn.qkv
        first = 4 * PLANTED_HEAD
        qkv.bias[first] = 4.0  # the same for every query
        qkv.weight[16 + first, 0] = 1.0  # keys: the click's coordinate
    return backbone.eval()


@pytest.fixture(scope="session")
def write_wav(tmp_path_factory):
    """Writes a waveform: (name, waveform, labels) -> Track."""
    folder = tmp_path_factory.mktemp("sounds")

    def write(name, waveform, split="test", **labels):
        path = folder / f"{name}.wav"
        soundfile.write(path, waveform, RATE, subtype="FLOAT")
        return Track(track_id=name, audio=path, split=split, labels=labels)

    return write


@pytest.fixture(scope="session")
def click_tracks(write_wav):
    """Two validation and three test tracks of clicks whose onsets are known."""
    tracks = {"valid": [], "test": []}
    for index, split in enumerate(["valid", "valid", "test", "test", "test"]):
        onsets = irregular(10.0 + index, index)
        waveform = clicks(onsets, 10.0 + index, index)
        tracks[split].append(write_wav(f"click{index}", waveform, split, onsets=onsets))
    return tracks


@pytest.fixture(scope="session")
def corpus_of_tracks():
    """Maker of corpora: {"valid": tracks, "test": tracks} -> Corpus."""

    def make(tracks):
        corpus = Corpus("made", tracks, {name: len(of_split) for name, of_split in tracks.items()})
        corpus.digest = "0" * 16  # labels that are arrays, not files, have none
        return corpus

    return make


@pytest.fixture(scope="session")
def model_of():
    """Maker of inspected models: (backbone, kind, replacement_audio) -> InspectedModel."""

    def make(backbone, kind="pretrained", replacement_audio=None):
        about = {"path": kind, "digest": backbone.digest(), "kind": kind}
        return InspectedModel(backbone, kind, 0, about, replacement_audio)

    return make


@pytest.fixture(scope="session")
def make_context():
    """Maker of contexts: (corpus, folder, **fields) -> InspectionContext."""

    def make(corpus, folder, **fields):
        rows = InspectionRows(folder, corpus, {})
        return InspectionContext(**{"corpus": corpus, "features": FeatureConfig(), "rows": rows} | fields)

    return make


@pytest.fixture
def context_for(make_context, tmp_path):
    """Maker of contexts: (corpus, **fields) -> InspectionContext; rows go to the test's folder."""
    return lambda corpus, **fields: make_context(corpus, tmp_path, **fields)


@pytest.fixture
def write_manifest(tmp_path):
    """Writes a manifest corpus: list of fields, each with its waveform -> folder."""

    def write(entries, name="corpus"):
        folder = tmp_path / name
        folder.mkdir()
        lines = []
        for index, (waveform, fields, files) in enumerate(entries):
            line = {"track_id": f"t{index}", "audio": f"t{index}.wav"} | fields
            if waveform is not None:
                soundfile.write(folder / f"t{index}.wav", waveform, RATE, subtype="FLOAT")
            for field, text in files.items():
                (folder / f"t{index}.{field}").write_text(text)
                line[field] = f"t{index}.{field}"
            lines.append(json.dumps(line) + "\n")
        (folder / "manifest.jsonl").write_text("".join(lines))
        return folder

    return write


@pytest.fixture(scope="session")
def songs():
    """Twenty short songs, three of them in validation and three in test."""
    from musictf.synthesis.synthetic import Synthetic

    corpus = Synthetic(num_tracks=20, seconds=12, workers=1)
    corpus.read_tracks()
    return corpus


@pytest.fixture(scope="session")
def backbone_path(tmp_path_factory, small):
    from musictf.models.backbone import save_backbone

    path = tmp_path_factory.mktemp("backbone") / "backbone.safetensors"
    save_backbone(small, path)
    return path


@pytest.fixture(scope="session")
def quick():
    """Fewer stimuli and resamples, for tests that do not check the numbers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("musictf.inspection.position._STIMULUS_TRACKS", 4)
        patch.setattr("musictf.inspection.token_maps._RESAMPLES", 20)
        patch.setattr("musictf.inspection.token_maps._NULL_DRAWS", 20)
        yield


@pytest.fixture(scope="session")
def inspection(backbone_path):
    """Maker of runs: (dataset, folder, **fields) -> InspectRun."""
    from musictf.distributed import TrainerConfig
    from musictf.inspection.attention import AttentionConfig
    from musictf.inspection.binned_tracks import SimilarityConfig
    from musictf.inspection.inspect_run import InspectRun

    def make(dataset, folder, **fields):
        given = {
            "backbone": str(backbone_path),
            "model": ViT1DConfig(depth=2, embed_dim=16, num_heads=2),
            "trainer": TrainerConfig(accelerator="cpu"),
            "seeds": [0],
            "attention": AttentionConfig(draws=20),
            "similarity": SimilarityConfig(draws=2),
            "output_dir": str(folder),
        }
        return InspectRun(dataset=dataset, **given | fields)

    return make


@pytest.fixture(scope="session")
def inspected(songs, inspection, quick, tmp_path_factory):
    """The folder of a whole run, and the warnings that it gave."""
    import warnings

    from musictf.inspection.inspect_run import inspect

    folder = tmp_path_factory.mktemp("inspected") / "run"
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        inspect(inspection(songs, folder))
    return folder, warned
