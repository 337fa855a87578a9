"""The backbone file: what is loaded is what was saved, and anything else is refused with its reason."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors
import torch
from safetensors.torch import save_file

from musictf.audio.front_end import FrontEndConfig
from musictf.errors import InputError
from musictf.models.backbone import Backbone, load_backbone, save_backbone
from musictf.models.vit1d import ViT1DConfig

CONFIG = ViT1DConfig(depth=2, embed_dim=16, num_heads=2, max_frames=32)


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    return Backbone(CONFIG, FrontEndConfig(top_db=80.0)).eval()


@pytest.fixture
def path(backbone, tmp_path):
    path = tmp_path / "run" / "backbone.safetensors"
    save_backbone(backbone, path, {"steps": 7, "corpus": "toy"})
    return path


@pytest.fixture
def waveform(white_noise):
    return torch.from_numpy(white_noise(2 * 15_000).reshape(2, -1))


def contents(path):
    with safetensors.safe_open(str(path), framework="pt") as file:
        return json.loads(file.metadata()["musictf"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def rewrite(path, description, weights):
    save_file(weights, str(path), metadata={"musictf": json.dumps(description)})


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_round_trip_is_bit_identical(backbone, path, waveform):
    loaded = load_backbone(path)
    assert loaded.provenance == {"steps": 7, "corpus": "toy"}
    assert loaded.digest() == backbone.digest()
    assert loaded.front_end.config == backbone.front_end.config
    for name, value in backbone.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    with torch.no_grad():
        before, after = backbone(waveform, range(3)), loaded(waveform, range(3))
    for layer in range(3):
        assert torch.equal(before.class_token[layer], after.class_token[layer])
        assert torch.equal(before.sequence[layer], after.sequence[layer])


def test_a_loaded_backbone_is_frozen_and_in_eval_mode(path):
    loaded = load_backbone(path.parent)  # the run folder names its backbone
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_saving_leaves_the_backbone_as_it_was(backbone, tmp_path):
    backbone.train()
    save_backbone(backbone, tmp_path / "b.safetensors")
    assert backbone.training
    assert [file.name for file in tmp_path.iterdir()] == ["b.safetensors"]


def test_loading_needs_neither_lightning_nor_hydra_nor_wandb(path):
    python(
        "import sys; from musictf import load_backbone; "
        f"load_backbone({str(path)!r}); "
        "found = {'lightning', 'pytorch_lightning', 'hydra', 'omegaconf', 'wandb'} & set(sys.modules); "
        "assert not found, found"
    )


def test_importing_musictf_does_not_import_torch():
    python("import musictf, sys; assert 'torch' not in sys.modules; assert musictf.__version__")


def test_token_times_are_those_of_the_frames(backbone, waveform):
    output = backbone(waveform)
    np.testing.assert_array_equal(output.times, np.arange(30) * 512 / 16_000)
    assert output.sequence[2].shape == (2, 30, 16)
    assert backbone.num_samples == 31 * 512
    assert backbone(torch.zeros(1, backbone.num_samples)).times.shape == (32,)


def change_weight(description, weights):
    weights["blocks.0.attn.qkv.weight"][3, 2] += 1e-3


def change_config(description, weights):
    description["config"]["front_end"]["f_max"] = 7999.0


def change_format(description, weights):
    description["format"] = "musictf-backbone/2"


def change_fingerprint(description, weights):
    description["fingerprint"][0] += 0.01


def drop_weight(description, weights):
    del weights["norm.bias"]


def reshape_weight(description, weights):
    weights["pos_embed"] = weights["pos_embed"][:-1].clone()


def unknown_setting(description, weights):
    description["config"]["encoder"]["registers"] = 4


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (change_weight, "digest"),
        (change_config, "digest"),
        (change_format, "musictf-backbone/2.*reads 'musictf-backbone/1'"),
        (change_fingerprint, "fingerprint"),
        (drop_weight, "norm.bias"),
        (reshape_weight, "pos_embed"),
        (unknown_setting, "registers"),
    ],
)
def test_a_changed_file_is_refused(path, change, reason):
    description, weights = contents(path)
    change(description, weights)
    rewrite(path, description, weights)
    with pytest.raises(InputError, match=reason) as caught:
        load_backbone(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["format", "config", "digest", "fingerprint"])
def test_a_description_without_one_of_its_parts_is_refused(path, key):
    description, weights = contents(path)
    del description[key]
    rewrite(path, description, weights)
    with pytest.raises(InputError, match=key):
        load_backbone(path)


def test_files_of_other_kinds_are_refused(path, tmp_path):
    content = path.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.safetensors").touch()
    save_file({"weight": torch.zeros(2)}, str(tmp_path / "foreign.safetensors"))
    save_file({"weight": torch.zeros(2)}, str(tmp_path / "list.safetensors"), metadata={"musictf": "[1]"})
    save_file({"weight": torch.zeros(2)}, str(tmp_path / "damaged.safetensors"), metadata={"musictf": "{"})
    torch.save({"state_dict": {}}, tmp_path / "last.ckpt")
    reasons = {
        "cut.safetensors": "not a backbone file",
        "empty.safetensors": "not a backbone file",
        "foreign.safetensors": "without a musictf description",
        "list.safetensors": "description is damaged",
        "damaged.safetensors": "description is damaged",
        "last.ckpt": "not a backbone file",
        "missing.safetensors": "does not exist",
    }
    for name, reason in reasons.items():
        with pytest.raises(InputError, match=reason) as caught:
            load_backbone(tmp_path / name)
        assert name in str(caught.value)


def test_a_backbone_can_be_read_by_whom_the_user_lets_read(tmp_path):
    (tmp_path / "other").touch()
    save_backbone(Backbone(ViT1DConfig(depth=1, embed_dim=16, num_heads=2)), tmp_path / "backbone.safetensors")
    assert (tmp_path / "backbone.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
