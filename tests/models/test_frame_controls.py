"""Controls: random weights that depend on the seed alone, and classical features that are librosa's."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from musictf.audio.front_end import FrontEndConfig
from musictf.errors import InputError
from musictf.models.backbone import random_backbone
from musictf.models.frame_controls import FRAME_CONTROL_CLASSES, ChromaControl, InputControl, MelControl, MFCCControl
from musictf.models.vit1d import ViT1DConfig

CONFIG = ViT1DConfig(depth=2, embed_dim=16, num_heads=2, max_frames=32)
RATE, HOP, EXCERPT = 16_000, 512, 64_000
PITCH_CLASSES = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"]


def melody(seed=0, num_samples=EXCERPT):
    """Notes of several partials that decay, with a little noise."""
    generator = np.random.default_rng(seed)
    waveform = 1e-3 * generator.normal(size=num_samples)
    for onset in range(0, num_samples, 8000):
        time = np.arange(num_samples - onset) / RATE
        pitch = 440 * 2 ** (generator.integers(-24, 24) / 12)
        for partial in range(1, 6):
            waveform[onset:] += 0.2 / partial * np.exp(-4 * time) * np.sin(2 * np.pi * partial * pitch * time)
    return waveform.astype(np.float32)


def half_silent():
    waveform = melody(3)
    waveform[20_000:40_000] = 0
    return waveform


SIGNALS = {
    "melody": melody(),
    "short": melody(1, 1500),
    "noise": (0.1 * np.random.default_rng(2).normal(size=EXCERPT)).astype(np.float32),
    "half silent": half_silent(),
    "silence": np.zeros(EXCERPT, dtype=np.float32),
    "quiet": 1e-4 * melody(4),
}


@pytest.fixture(params=SIGNALS)
def signal(request):
    return SIGNALS[request.param]


@pytest.fixture
def waveform(white_noise):
    return torch.from_numpy(white_noise(2 * 15_000).reshape(2, -1))


def test_random_weights_depend_on_the_seed_alone():
    first = random_backbone(CONFIG, seed=3)
    torch.randn(5)
    state = torch.get_rng_state()
    again = random_backbone(CONFIG, seed=3)
    assert first.digest() == again.digest()
    assert torch.equal(torch.get_rng_state(), state)  # and drawing them disturbs nobody else
    assert first.digest() != random_backbone(CONFIG, seed=4).digest()
    assert first.kind == "random"
    assert first.provenance == {"seed": 3}
    assert not first.training


def test_the_mel_control_is_the_spectrogram(waveform):
    mel = MelControl()
    output = mel(waveform, [0])
    assert torch.equal(output.sequence[0], mel.front_end(waveform).transpose(1, 2))
    torch.testing.assert_close(output.class_token[0], output.sequence[0].mean(dim=1))
    with pytest.raises(InputError, match="layer 0"):
        mel(waveform, [1])


def test_mfcc_are_librosas_of_the_same_spectrogram(signal):
    control = MFCCControl()
    found = control(torch.from_numpy(signal)[None]).sequence[0][0]
    level = control.front_end(torch.from_numpy(signal)[None])[0].numpy()
    wanted = librosa.feature.mfcc(S=level, n_mfcc=20).T
    np.testing.assert_allclose(found, wanted, rtol=3e-6, atol=1e-3)  # of coefficients up to a thousand, in float32


def test_mfcc_are_librosas_from_the_waveform():
    """Down to the spectrogram; decibels differ by the constant that normalises the window, so all but the first."""
    signal = melody(5)
    found = MFCCControl()(torch.from_numpy(signal)[None]).sequence[0][0].numpy()
    power = librosa.feature.melspectrogram(
        y=signal, sr=RATE, n_fft=1024, hop_length=HOP, n_mels=128, fmin=0, fmax=8000, pad_mode="reflect"
    )
    wanted = librosa.feature.mfcc(S=librosa.power_to_db(power, ref=np.max, amin=1e-20, top_db=100), n_mfcc=20).T
    np.testing.assert_allclose(found[:, 1:], wanted[:, 1:], rtol=0, atol=0.02)
    assert np.ptp(found[:, 0] - wanted[:, 0]) < 0.02


@pytest.mark.filterwarnings("ignore:n_fft=4096 is too large")  # for 1500 samples, says librosa, and goes on
def test_chroma_are_librosas(signal):
    found = ChromaControl()(torch.from_numpy(signal)[None]).sequence[0][0]
    wanted = librosa.feature.chroma_stft(
        y=signal, sr=RATE, n_fft=4096, hop_length=HOP, pad_mode="constant", tuning=0.0
    ).T
    assert found.shape == wanted.shape == (len(signal) // HOP + 1, 12)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-4)


@pytest.mark.parametrize("octave", [3, 4, 5])
@pytest.mark.parametrize("pitch_class", range(12))
def test_a_sine_has_the_chroma_of_its_pitch(pitch_class, octave):
    frequency = librosa.note_to_hz(f"{PITCH_CLASSES[pitch_class]}{octave}")
    sine = 0.5 * torch.sin(2 * torch.pi * frequency * torch.arange(EXCERPT) / RATE)
    frames = ChromaControl()(sine[None]).sequence[0][0]
    inner = frames[4:-4]
    assert (inner.argmax(dim=1) == pitch_class).all()
    assert (inner[:, pitch_class] == 1).all()
    opposite = inner[:, (pitch_class + 6) % 12]
    assert opposite.max() < 0.05


def test_chroma_does_not_depend_on_the_level_and_is_0_in_silence():
    control = ChromaControl()
    loud, quiet, silence = (torch.from_numpy(x)[None] for x in (melody(6), 1e-3 * melody(6), 0 * melody(6)))
    torch.testing.assert_close(control(loud).sequence[0], control(quiet).sequence[0], rtol=0, atol=1e-4)
    assert (control(silence).sequence[0] == 0).all()
    assert (control(loud).sequence[0].amax(dim=2) == 1).all()


@pytest.mark.parametrize("kind", FRAME_CONTROL_CLASSES)
def test_a_control_knows_what_it_is(kind, waveform):
    control = FRAME_CONTROL_CLASSES[kind]()
    assert (control.kind, control.name) == (kind, kind)
    assert (control.depth, control.num_parameters, control.num_samples) == (0, 0, EXCERPT)
    output = control(waveform)
    assert list(output.class_token) == list(output.sequence) == [0]
    assert output.sequence[0].shape == (2, 30, control.embed_dim)
    assert output.sequence[0].dtype == torch.float32
    assert control.embed_dim == {"input": 128, "mel": 128, "mfcc": 20, "chroma": 12}[kind]
    torch.testing.assert_close(output.class_token[0], output.sequence[0].mean(dim=1))
    np.testing.assert_array_equal(output.times, np.arange(30) * HOP / RATE)
    assert not any(parameter.requires_grad for parameter in control.parameters())


@pytest.mark.parametrize("kind", FRAME_CONTROL_CLASSES)
def test_each_excerpt_of_a_batch_is_as_if_alone(kind):
    control = FRAME_CONTROL_CLASSES[kind]()
    batch = torch.from_numpy(np.stack([SIGNALS[name] for name in ("melody", "silence", "quiet", "noise")]))
    together = control(batch).sequence[0]
    for excerpt, frames in zip(batch, together, strict=True):
        torch.testing.assert_close(control(excerpt[None]).sequence[0][0], frames, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", FRAME_CONTROL_CLASSES)
@pytest.mark.parametrize("wrong", [{"layers": [1]}, {"layers": [0, 1]}, {"layers": []}, {"attention": True}])
def test_there_is_only_layer_0_and_no_attention(kind, wrong, waveform):
    with pytest.raises(InputError, match=f"backbone={kind} has only layer 0"):
        FRAME_CONTROL_CLASSES[kind]()(waveform, **wrong)


def test_a_digest_is_of_the_kind_and_the_front_end_and_of_nothing_drawn():
    front_ends = [
        FrontEndConfig(),
        FrontEndConfig(n_mels=64),
        FrontEndConfig(hop_length=256),
        FrontEndConfig(top_db=80.0),
    ]
    digests = [control(front_end).digest() for control in FRAME_CONTROL_CLASSES.values() for front_end in front_ends]
    assert len({*digests, random_backbone(CONFIG).digest()}) == len(FRAME_CONTROL_CLASSES) * len(front_ends) + 1
    for control in FRAME_CONTROL_CLASSES.values():
        torch.manual_seed(1)
        first = control().digest()
        torch.manual_seed(2)
        assert control().digest() == control(FrontEndConfig()).digest() == first


def test_controls_follow_their_front_end(waveform):
    front_end = FrontEndConfig(n_mels=64, hop_length=256)
    for kind, control in FRAME_CONTROL_CLASSES.items():
        output = control(front_end)(waveform)
        assert output.sequence[0].shape == (
            2,
            15_000 // 256 + 1,
            {"input": 64, "mel": 64, "mfcc": 20, "chroma": 12}[kind],
        )
        np.testing.assert_array_equal(output.times, np.arange(59) * 256 / RATE)


def test_the_input_is_what_an_untrained_encoder_is_given(waveform):
    front_end = FrontEndConfig(parts=["mel", "pitch", "rise"])
    backbone = random_backbone(CONFIG, front_end)
    seen = []
    backbone.encoder.frame_proj.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    backbone(waveform)
    control = InputControl(backbone.baseline_front_end)
    torch.testing.assert_close(control(waveform).sequence[0], seen[0])
    assert control.embed_dim == 128 + 144 + 128
    assert control.digest() != InputControl().digest()
    assert MelControl(front_end).digest() == MelControl().digest()  # of the front end it uses the mel alone
