"""ViT-1D: timm's transformer behind our own first and last step, and nothing lost on the exact attention path."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from musictf.audio.front_end import FrontEndConfig, Part
from musictf.errors import InputError
from musictf.models.vit1d import ViT1D, ViT1DConfig, frame_norm

MODELS = Path(__file__).parents[2] / "conf" / "model"
SMALL = {"depth": 3, "embed_dim": 32, "num_heads": 4, "max_frames": 20}


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    encoder = ViT1D(ViT1DConfig(**SMALL), parts=[Part("mel", 16, is_normalised=True)])
    with torch.no_grad():  # the initial values are so small that hardly anything would show
        for parameter in encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return encoder.eval()


@pytest.fixture
def mel():
    return torch.randn(2, 16, 20, generator=torch.Generator().manual_seed(1))


class Projected(nn.Module):
    """Our projected tokens in the place of timm's patches."""

    def __init__(self, encoder):
        super().__init__()
        self.project, self.num_patches = encoder.project, encoder.config.max_frames + 1

    def forward(self, mel):
        return self.project(mel)


def test_the_output_is_that_of_timm_with_the_same_weights(encoder, mel):
    timm = VisionTransformer(
        embed_layer=lambda **_: Projected(encoder),
        depth=3,
        embed_dim=32,
        num_heads=4,
        class_token=False,
        global_pool="",
        num_classes=0,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    ).eval()
    ours = {name: value for name, value in encoder.state_dict().items() if name.startswith(("blocks.", "norm."))}
    timm.load_state_dict(ours | {"pos_embed": encoder.pos_embed[None]})
    with torch.no_grad():
        tokens, expected = encoder(mel), timm(mel)
    torch.testing.assert_close(tokens.class_token[3], expected[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(tokens.sequence[3], expected[:, 1:], rtol=0, atol=1e-5)


def test_exact_attention_gives_the_same_tokens_and_rows_that_sum_to_one(encoder, mel):
    with torch.no_grad():
        fused, exact = encoder(mel, range(4)), encoder(mel, range(4), attention=True)
    assert not fused.attention
    assert list(exact.attention) == [1, 2, 3]
    for layer in range(4):
        torch.testing.assert_close(exact.class_token[layer], fused.class_token[layer], rtol=0, atol=1e-5)
        torch.testing.assert_close(exact.sequence[layer], fused.sequence[layer], rtol=0, atol=1e-5)
    for weights in exact.attention.values():
        assert weights.shape == (2, 4, 21, 21)
        assert weights.std() > 1e-3  # not uniform: a map that says something
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 4, 21), rtol=0, atol=1e-5)


def test_attention_maps_mix_the_values(encoder, mel):
    """Rows are queries: the class token's row weighs the values that the class token receives."""
    block = encoder.blocks[0]
    with torch.no_grad():
        x = encoder.project(mel) + encoder.pos_embed
        weights = encoder(mel, [1], attention=True).attention[1]
        values = block.attn.qkv(block.norm1(x))[..., 64:].reshape(2, 21, 4, 8)
        mixed = torch.einsum("bhqk,bkhd->bqhd", weights, values).reshape(2, 21, 32)
        torch.testing.assert_close(block.attn.proj(mixed), block.attn(block.norm1(x))[0], rtol=0, atol=1e-5)


def test_the_class_token_is_a_learned_vector_plus_the_mean_of_the_frames(encoder, mel):
    tokens = encoder(mel, [0])
    frames = nn.functional.gelu(encoder.frame_proj(encoder.frame_norm(mel.transpose(1, 2))))
    torch.testing.assert_close(tokens.sequence[0], frames)
    torch.testing.assert_close(tokens.class_token[0], encoder.class_token + frames.mean(dim=1))


def test_layer_0_knows_no_positions_and_the_last_layer_is_normed(encoder, mel):
    before = encoder(mel, range(4))
    with torch.no_grad():
        encoder.pos_embed.add_(1.0)
    assert torch.equal(encoder(mel, [0]).sequence[0], before.sequence[0])
    with torch.no_grad():
        encoder.pos_embed.sub_(1.0)
        encoder.norm.weight.fill_(1.0)
        encoder.norm.bias.zero_()
    after = encoder(mel, range(4))
    torch.testing.assert_close(after.sequence[3].mean(dim=-1), torch.zeros(2, 20), rtol=0, atol=1e-5)
    torch.testing.assert_close(after.sequence[3].var(dim=-1, unbiased=False), torch.ones(2, 20), rtol=0, atol=1e-3)
    torch.testing.assert_close(after.sequence[2], before.sequence[2], rtol=0, atol=1e-5)  # the norm is the last's alone


@pytest.mark.parametrize("has_positions", [False, True])
def test_only_positions_tell_the_order_of_frames(encoder, mel, has_positions):
    if not has_positions:
        nn.init.zeros_(encoder.pos_embed)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        straight, shuffled = encoder(mel), encoder(mel[:, :, order])
    moved = (shuffled.sequence[3] - straight.sequence[3][:, order]).abs().max()
    class_token_moved = (shuffled.class_token[3] - straight.class_token[3]).abs().max()
    assert bool(moved > 1e-3) == bool(class_token_moved > 1e-3) == has_positions
    if not has_positions:
        assert max(moved, class_token_moved) < 1e-5


def test_fewer_frames_take_the_first_positions(encoder, mel):
    short = encoder(mel[..., :7])
    assert short.sequence[3].shape == (2, 7, 32)
    with torch.no_grad():
        encoder.pos_embed[8:] = 1e6
    assert torch.equal(encoder(mel[..., :7]).sequence[3], short.sequence[3])


def test_a_layer_is_the_same_whichever_others_are_asked_for(encoder, mel):
    together = encoder(mel, range(4))
    for layer in range(4):
        alone = encoder(mel, [layer])
        assert list(alone.sequence) == list(alone.class_token) == [layer]
        assert torch.equal(alone.sequence[layer], together.sequence[layer])
    assert list(encoder(mel).sequence) == [3]


@pytest.mark.parametrize(("preset", "millions"), [("mini", 0.83), ("tiny", 5.39), ("small", 21.4)])
def test_presets_have_the_parameters_they_promise(preset, millions):
    fields = yaml.safe_load((MODELS / f"vit1d_{preset}.yaml").read_text())
    del fields["defaults"]
    config = ViT1DConfig(**fields)
    assert config.preset == f"vit1d_{preset}"
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in ViT1D(config).parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize("layers", [[4], [-1], [0, 9]])
def test_an_unknown_layer_is_refused(encoder, mel, layers):
    with pytest.raises(InputError, match="0 .* to 3"):
        encoder(mel, layers)


def test_more_frames_than_positions_are_refused(encoder):
    with pytest.raises(InputError, match="21 frames.*20"):
        encoder(torch.zeros(1, 16, 21))


@pytest.mark.parametrize("change", [{"num_heads": 5}, {"depth": 0}, {"max_frames": 0}])
def test_an_impossible_shape_is_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        ViT1DConfig(**(SMALL | change))


def test_class_token_alone_equals_the_full_forward_and_its_gradients():
    encoder = ViT1D(ViT1DConfig(depth=3, embed_dim=16, num_heads=2))
    mel = torch.randn(3, 128, 126)
    full = encoder(mel).class_token[3]
    alone = encoder.class_token_of_last(mel)
    torch.testing.assert_close(alone, full, atol=1e-6, rtol=0)
    weights = list(encoder.parameters())
    target = torch.randn_like(full)
    for mine, theirs in zip(
        torch.autograd.grad((alone * target).sum(), weights), torch.autograd.grad((full * target).sum(), weights)
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


@pytest.fixture
def small():
    torch.manual_seed(0)
    return ViT1D(
        ViT1DConfig(depth=3, embed_dim=16, num_heads=2, max_frames=20), parts=[Part("mel", 12, is_normalised=True)]
    )


def test_keeping_every_frame_changes_nothing(small):
    mel = torch.randn(3, 12, 20)
    kept = torch.arange(20).expand(3, -1)
    torch.testing.assert_close(small.class_token_of_last(mel, kept), small.class_token_of_last(mel))


def test_a_kept_frame_has_the_position_it_had(small):
    """Frames 4 to 11 kept are frames 4 to 11 of an excerpt whose positions begin there."""
    mel = torch.randn(2, 12, 20)
    kept = torch.arange(4, 12).expand(2, -1)
    found = small.class_token_of_last(mel, kept)
    with torch.no_grad():
        small.pos_embed[1:9] = small.pos_embed[5:13].clone()
    torch.testing.assert_close(small.class_token_of_last(mel[..., 4:12]), found)


def test_a_dropped_frame_is_gone(small):
    mel, kept = torch.randn(2, 12, 20), torch.tensor([[0, 3, 7], [1, 2, 19]])
    before = small.class_token_of_last(mel, kept)
    mel[0, :, 5], mel[1, :, 0] = 100.0, -100.0
    assert torch.equal(small.class_token_of_last(mel, kept), before)
    mel[0, :, 3] = 100.0
    assert not torch.equal(small.class_token_of_last(mel, kept), before)


def test_checkpointing_changes_no_gradient(small):
    mel = torch.randn(3, 12, 20)
    weight = torch.randn(3, 16)
    slopes = []
    for checkpointing in (False, True):
        loss = (small.class_token_of_last(mel, checkpointing=checkpointing) * weight).sum()
        slopes.append(torch.autograd.grad(loss, list(small.parameters())))
    assert all(torch.equal(one, other) for one, other in zip(*slopes, strict=True))
    assert all(slope.abs().max() > 0 for slope in slopes[0])


def test_bfloat16_is_the_same_network_but_for_rounding(small):
    """On processors it takes the open path of the attention, whose gradient must be that of the fused one."""
    mel, weight = torch.randn(4, 12, 20), torch.randn(4, 16)
    slopes = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            tokens = small.class_token_of_last(mel)
        slopes.append(
            torch.cat([g.flatten() for g in torch.autograd.grad((tokens * weight).sum(), small.parameters())])
        )
    assert F.cosine_similarity(*slopes, dim=0) > 0.999
    assert not torch.equal(*slopes)


def test_parts_are_normalised_each_by_itself_and_level_is_kept_where_it_counts():
    parts = [
        Part("mel", 4, is_normalised=True),
        Part("pitch", 6, is_normalised=True),
        Part("rise", 4, is_normalised=False),
    ]
    frames = torch.randn(2, 5, 14, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 15.0)
    found = frame_norm(parts)(frames)
    for first, end in ((0, 4), (4, 10)):
        torch.testing.assert_close(found[..., first:end], F.layer_norm(frames[..., first:end], (end - first,)))
    assert torch.equal(found[..., 10:], frames[..., 10:])


def test_the_papers_front_end_has_the_parameter_names_it_had():
    names = [name for name, _ in ViT1D(ViT1DConfig(depth=1)).named_parameters() if name.startswith("frame")]
    assert names == ["frame_norm.weight", "frame_norm.bias", "frame_proj.weight", "frame_proj.bias"]
    assert (
        ViT1D(ViT1DConfig(depth=1), FrontEndConfig(parts=["mel", "pitch"]).layout).frame_proj.in_features == 128 + 144
    )
