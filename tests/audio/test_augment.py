"""Augmentations: what each must change, what it must not, and that a row never knows its neighbours."""

from __future__ import annotations

import math

import librosa
import numpy as np
import pytest
import scipy.signal
import torch
import yaml
from omegaconf import OmegaConf
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from musictf.audio.augment import Augment, AugmentConfig, Stream, noisy
from musictf.config import conf_folder
from musictf.errors import InputError

RATE = 16_000
SEEDS = torch.arange(100, 140)
EFFECTS = {
    "gain": {"gain_db": 12.0},
    "polarity": {"polarity": 0.5},
    "noise": {"noise": 0.5},
    "low_pass": {"low_pass": 0.5},
    "high_pass": {"high_pass": 0.5},
    "reverb": {"reverb": 0.5},
    "pitch": {"pitch": 0.5},
}
ALL = {key: value for keys in EFFECTS.values() for key, value in keys.items()}


def augmented(waveform, seeds=SEEDS, **keys):
    """The same waveform under each seed, or rows under a seed each: (B, N)."""
    rows = torch.as_tensor(np.asarray(waveform), dtype=torch.float32)
    rows = rows.expand(len(seeds), -1) if rows.ndim == 1 else rows
    return Augment(AugmentConfig(**keys), RATE)(rows, seeds)


def decibels(after, before):
    """Power of each row over that of ``before``."""
    power = np.square(np.asarray(after, np.float64)).mean(axis=-1)
    return 10 * np.log10(power / np.square(np.asarray(before, np.float64)).mean(axis=-1))


def impulse(position=1000, num_samples=2 * RATE):
    waveform = np.zeros(num_samples, np.float32)
    waveform[position] = 0.5
    return waveform


def is_uniform(values, lowest, highest):
    """Values within the ends that reach into the outer quarters."""
    quarter = (highest - lowest) / 4
    return lowest <= min(values) < lowest + quarter and highest - quarter < max(values) <= highest


def test_gain_changes_level_and_nothing_else(white_noise):
    before = white_noise(RATE, level=0.4)
    after = augmented(before, gain_db=12.0).numpy()
    assert is_uniform(decibels(after, before), -12, 12)
    for row in after:
        assert np.corrcoef(row, before)[0, 1] == pytest.approx(1)
    assert np.abs(after).max() > 1  # nothing is clipped


def test_polarity_flips_the_sign_and_nothing_else(white_noise):
    before = 3 * torch.from_numpy(white_noise(4000, level=0.5))  # beyond full scale: nothing is clipped
    after = augmented(before, polarity=0.5)
    is_flipped = [torch.equal(row, -before) for row in after]
    assert 8 <= sum(is_flipped) <= 32
    for row, flipped in zip(after, is_flipped, strict=True):
        assert flipped or torch.equal(row, before)
        assert np.array_equal(np.abs(librosa.stft(row.numpy())), np.abs(librosa.stft(before.numpy())))


def test_noise_is_white_and_as_loud_as_drawn():
    before = np.sin(np.arange(40_000) / 7).astype(np.float32) * np.linspace(0, 1, 40_000, dtype=np.float32)
    added = augmented(before, noise=1.0, noise_db=[5, 25]).numpy() - before
    assert is_uniform(-decibels(added, before), 5, 25)
    for row in added:
        spectrum = scipy.signal.welch(row, nperseg=256)[1][2:-2]
        assert spectrum.max() / spectrum.min() < 2
        assert abs(np.corrcoef(row, before)[0, 1]) < 0.025
    assert np.abs(np.corrcoef(added) - np.eye(len(added))).max() < 0.025  # to each its own


def test_the_level_of_the_noise_that_is_handed_in_does_not_matter(white_noise):
    rows, samples = (torch.from_numpy(white_noise(50, seed))[None] for seed in (0, 1))
    for level in (0.01, 1.0, 7.0):
        added = noisy(rows, level * samples, torch.tensor([10.0])) - rows
        assert decibels(added, rows) == pytest.approx(-10, abs=1e-3)


def edges_and_gains(before, after):
    """Frequency where each row loses 3 dB, and its gain in dB by frequency, from the responses to an impulse."""
    gains = 20 * np.log10(np.abs(np.fft.rfft(after)) / np.abs(np.fft.rfft(before)) + 1e-12)
    hertz = np.fft.rfftfreq(len(before), 1 / RATE)
    return hertz, gains


@pytest.mark.parametrize(("key", "ends"), [("low_pass", (1000.0, 6000.0)), ("high_pass", (60.0, 500.0))])
def test_a_filter_cuts_beyond_its_edge_and_keeps_the_rest(key, ends):
    before = impulse(RATE)
    hertz, gains = edges_and_gains(before, augmented(before, **{key: 1.0, f"{key}_hz": list(ends)}).numpy())
    edges = []
    for gain in gains:
        edge = hertz[np.abs(gain + 3.01).argmin()]
        octaves = np.log2(np.maximum(hertz, 1e-3) / edge) * (1 if key == "low_pass" else -1)
        assert np.abs(gain[octaves < -1]).max() < 0.1
        assert gain[octaves > 1].max(initial=-100) < -23
        assert gain[octaves > 2].max(initial=-100) < -45
        edges.append(edge)
    assert is_uniform(np.log(edges), math.log(ends[0] * 0.99), math.log(ends[1] * 1.01))


@pytest.mark.parametrize("key", ["low_pass", "high_pass"])
def test_a_filter_moves_nothing_in_time(key):
    before = impulse(RATE)
    for row in augmented(before, **{key: 1.0}).numpy():
        assert np.abs(row).argmax() == RATE
        np.testing.assert_allclose(row[RATE:][1:2000], row[:RATE][:-2000:-1], atol=1e-5)  # no phase


def test_a_filter_does_not_join_the_end_to_the_start():
    before = np.zeros(RATE, np.float32)
    before[-200:] = 0.5
    assert np.abs(augmented(before, high_pass=1.0).numpy()[:, :2000]).max() < 1e-3


def test_a_room_fades_as_drawn_behind_the_direct_sound():
    before = impulse(1000)
    after = augmented(before, reverb=1.0, reverb_seconds=[0.3, 1.2], reverb_db=[-12, 0]).numpy()
    fades, shares = [], []
    for row in after:
        assert np.abs(row[:1000]).max() < 1e-6
        assert np.abs(row).argmax() == 1000
        tail = row[1001:].astype(np.float64)
        left = 10 * np.log10(np.cumsum(tail[::-1] ** 2)[::-1] / np.sum(tail**2))  # Schroeder's integral
        chosen = (left < -5) & (left > -25)
        fades.append(-60 / np.polyfit(np.flatnonzero(chosen) / RATE, left[chosen], 1)[0])
        shares.append(10 * np.log10(np.sum(tail**2) / float(row[1000]) ** 2))
    assert is_uniform(fades, 0.3 * 0.9, 1.2 * 1.1)
    assert is_uniform(shares, -12.01, 0.01)


def test_a_room_keeps_the_level_and_has_no_end_that_wraps(white_noise):
    before = white_noise(RATE)
    after = augmented(before, reverb=1.0, reverb_db=[-6, 0]).numpy()
    np.testing.assert_allclose(decibels(after, before), 0, atol=1e-3)
    late = np.zeros(RATE, np.float32)
    late[-2000:] = before[-2000:]
    assert np.abs(augmented(late, reverb=1.0).numpy()[:, : RATE - 2000]).max() < 1e-6


def test_pitch_moves_by_whole_cents_within_the_interval():
    before = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)
    after = augmented(before, pitch=1.0, pitch_semitones=0.5).numpy()[:, 4000:-4000]
    phase = np.unwrap(np.angle(scipy.signal.hilbert(after)))[:, 2000:-2000]
    hertz = (phase[:, -1] - phase[:, 0]) / (2 * np.pi * (phase.shape[1] - 1)) * RATE
    cents = 1200 * np.log2(hertz / 440)
    assert is_uniform(cents, -50.1, 50.1)
    assert np.abs(cents - np.rint(cents)).max() < 0.1


def test_clicks_stay_where_they_are_under_everything():
    places = np.arange(6000, 60_000, 7001)
    clicks = np.zeros(64_000, np.float32)
    clicks[places] = 0.7
    keys = ALL | {key: 1.0 for key in ALL if key != "gain_db"} | {"noise_db": [20.0, 40.0]}
    for row in augmented(clicks, SEEDS[:10], **keys).numpy():
        found = [place - 800 + np.abs(row[place - 800 : place + 800]).argmax() for place in places]
        assert np.abs(found - places).max() < 0.010 * RATE


@pytest.mark.parametrize("name", EFFECTS)
def test_an_effect_happens_to_its_share_of_rows_and_spares_the_others(name, white_noise):
    before = torch.from_numpy(white_noise(3000))
    seeds = torch.arange(300)
    spared = [torch.equal(row, before) for row in augmented(before, seeds, **EFFECTS[name])]
    assert sum(spared) == 0 if name == "gain" else 110 < sum(spared) < 190


def test_effects_are_drawn_apart(white_noise):
    before = torch.from_numpy(white_noise(1600))
    seeds = torch.arange(400)
    rows = [augmented(before, seeds, **keys) for name, keys in EFFECTS.items() if name != "gain"]
    spared = np.array([[torch.equal(row, before) for row in batch] for batch in rows], float)
    assert np.abs(np.corrcoef(spared) - np.eye(len(rows))).max() < 0.2


def test_one_effect_does_not_change_the_draws_of_another(white_noise):
    before = torch.from_numpy(white_noise(3000))
    gain = augmented(before, gain_db=6.0) / before
    both = augmented(before, gain_db=6.0, polarity=0.5) / before
    torch.testing.assert_close(both.abs(), gain)


@pytest.mark.parametrize("name", [*EFFECTS, "all"])
def test_a_row_knows_only_its_seed(name, white_noise):
    rows = torch.stack([torch.from_numpy(white_noise(8000, seed, 10.0 ** -(seed % 4))) for seed in range(12)])
    seeds = torch.arange(12) * 7919
    augment = Augment(AugmentConfig(**(ALL if name == "all" else EFFECTS[name])), RATE)
    together = augment(rows, seeds)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    close = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(augment(rows[order], seeds[order]), together[order], **close)
    torch.testing.assert_close(
        torch.cat([augment(rows[:5], seeds[:5]), augment(rows[5:], seeds[5:])]), together, **close
    )
    torch.testing.assert_close(augment(rows[3:4], seeds[3:4]), together[3:4], **close)
    assert not torch.allclose(augment(rows, seeds + 1), together)


@pytest.mark.parametrize("name", EFFECTS)
@pytest.mark.parametrize("num_samples", [1, 100, 1600, 16_000])
def test_any_input_keeps_its_shape_and_stays_finite(name, num_samples, white_noise):
    always = {key: value if key == "gain_db" else 1.0 for key, value in EFFECTS[name].items()}
    silence, direct = np.zeros(num_samples), np.ones(num_samples)
    alternating = np.where(np.arange(num_samples) % 2, -1.0, 1.0)
    rows = np.stack([silence, direct, alternating, white_noise(num_samples, level=3.0), 1e-7 * direct])
    after = augmented(rows, SEEDS[: len(rows)], **always)
    assert after.shape == rows.shape
    assert after.dtype == torch.float32
    assert torch.isfinite(after).all()
    assert not after[0].any()


def test_streams_keep_their_numbers():
    # another number here is another run for every seed that was ever reported
    assert [stream.name for stream in sorted(Stream)] == [
        *("GAIN", "POLARITY", "NOISE", "NOISE_DB", "NOISE_SAMPLES", "LOW_PASS", "LOW_PASS_HZ", "HIGH_PASS"),
        *("HIGH_PASS_HZ", "REVERB", "REVERB_SECONDS", "REVERB_DB", "REVERB_SAMPLES", "PITCH", "PITCH_CENTS"),
    ]
    assert sorted(Stream) == list(range(1, 16))


def test_off_is_the_same_tensor():
    assert AugmentConfig().off
    waveform = torch.rand(2, 100)
    assert Augment(AugmentConfig(), RATE)(waveform, torch.tensor([1, 2])) is waveform
    for keys in EFFECTS.values():
        assert not AugmentConfig(**keys).off


def test_the_generators_of_torch_are_left_alone(white_noise):
    torch.manual_seed(1)
    first = augmented(white_noise(4000), **ALL)
    assert torch.equal(torch.get_rng_state(), torch.Generator().manual_seed(1).get_state())
    torch.manual_seed(2)
    assert torch.equal(augmented(white_noise(4000), **ALL), first)


def test_the_input_is_not_written_to(white_noise):
    rows = torch.from_numpy(white_noise(4000)).repeat(4, 1)
    before = rows.clone()
    augmented(rows, SEEDS[:4], **ALL)
    assert torch.equal(rows, before)


def test_no_value_is_waited_for():
    # tensors without values: whatever read one, or made a shape of one, would fail
    with FakeTensorMode():
        augment = Augment(AugmentConfig(**ALL), RATE)
        assert augment(torch.empty(4, 20_000), torch.empty(4, dtype=torch.int64)).shape == (4, 20_000)
        with pytest.raises(DataDependentOutputException):
            torch.empty(1).item()


def test_autocast_does_not_touch_it(white_noise):
    before = white_noise(8000)
    wanted = augmented(before, **ALL)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = augmented(before, **ALL)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted)
    low = torch.from_numpy(before).bfloat16().expand(2, -1)
    assert Augment(AugmentConfig(**ALL), RATE)(low, SEEDS[:2]).dtype == torch.float32


def test_a_checkpoint_holds_nothing_of_it():
    assert not Augment(AugmentConfig(**ALL), RATE).state_dict()


@pytest.mark.gpu
def test_a_gpu_gives_the_same_and_waits_for_nothing(white_noise):
    rows = torch.from_numpy(np.stack([white_noise(64_000, seed) for seed in range(8)]))
    augment, seeds = Augment(AugmentConfig(**ALL), RATE), torch.arange(8)
    wanted = augment(rows, seeds)
    augment, rows, seeds = augment.cuda(), rows.cuda(), seeds.cuda()
    augment(rows, seeds)  # plans of the FFT
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = augment(rows, seeds)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(found.cpu(), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("gain_db", -1.0),
        ("gain_db", math.nan),
        ("gain_db", 61.0),
        ("polarity", 1.1),
        ("noise", -0.1),
        ("reverb", math.nan),
    ]
    + [("noise_db", [30.0, 10.0]), ("noise_db", [10.0]), ("noise_db", [math.nan, 3.0]), ("noise_db", [10.0, math.inf])]
    + [("low_pass_hz", [0.0, 100.0]), ("high_pass_hz", [10.0, math.inf]), ("reverb_seconds", [0.0, 1.0])]
    + [("reverb_db", [0.0, 21.0]), ("pitch_semitones", 1.1), ("pitch_semitones", 0.0), ("pitch", 2.0)],
)
def test_a_value_that_cannot_be_is_refused(key, value):
    with pytest.raises(InputError, match=rf"^augment\.{key}=[^\n]*$"):
        AugmentConfig(**{key: value})


def test_a_cut_off_above_half_the_sample_rate_is_refused_where_it_is_used():
    Augment(AugmentConfig(gain_db=3.0), 8000)
    with pytest.raises(InputError, match=r"^augment\.low_pass_hz=\[2000,7000\]: .* \(4000 Hz\)"):
        Augment(AugmentConfig(low_pass=0.1), 8000)


@pytest.mark.parametrize("path", sorted((conf_folder() / "augment").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_choices_fit_the_schema(path):
    values = yaml.safe_load(path.read_text())
    assert values.pop("defaults") == ["Augment"]
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(AugmentConfig), values))
    assert config.off == (path.stem == "none")
    Augment(config, RATE)
