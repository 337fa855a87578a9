"""A recording in a shard: the integers bring back the waveform, the silence map never calls a quiet excerpt loud."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import pickle

import numpy as np
import pytest

from musictf.errors import InputError
from musictf.packing.format import (
    FORMAT,
    Pack,
    Slot,
    StoredRecording,
    block_samples,
    pack_slots,
    read_pack,
    shard_path,
    slot_fields,
    store_recording,
)

RATE = 16_000


def write(folder, waveform, offset=0, rate=RATE, before=b"", peak=None):
    """Store a waveform in shard 0 of a folder, and return its slot."""
    path = shard_path(folder, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(before)
    step = block_samples(rate)
    blocks = [waveform[start : start + step] for start in range(0, len(waveform), step)]
    stored = store_recording(path, offset, rate, lambda: iter(blocks), peak)
    pack = Pack(folder, {"sample_rate": rate, "digest": str(folder)}, [])
    return Slot(**slot_fields(pack, stored.to_json()), shard=0, offset=offset), stored


def level(samples, gain):
    return 10 * np.log10(max(np.mean(np.square(samples * gain)), 1e-30))


def test_integers_times_gain_are_the_waveform_within_half_a_step(tmp_path, white_noise):
    waveform = white_noise(RATE * 130)  # three blocks
    slot, _ = write(tmp_path, waveform)
    assert slot.num_samples == len(waveform)
    for start, length in ((0, 4 * RATE), (59 * RATE, 4 * RATE), (len(waveform) - 7, 7), (5, 0)):
        found = slot.read(start, length)
        assert found.dtype == np.int16
        assert found.shape == (length,)
        np.testing.assert_allclose(found * slot.gain, waveform[start : start + length], atol=0.5 / 32768 + 1e-9)


def test_sixteen_bit_audio_is_kept_exactly(tmp_path):
    integers = np.random.default_rng(0).integers(-32768, 32768, RATE, dtype=np.int16)
    integers[:2] = -32768, 32767
    slot, _ = write(tmp_path, (integers / 32768).astype(np.float32))
    assert slot.gain == 1 / 32768
    np.testing.assert_array_equal(slot.read(0, RATE), integers)


@pytest.mark.parametrize("highest", [1.0, 1.7, -1.3])
def test_what_exceeds_full_scale_is_scaled_and_not_clipped(tmp_path, white_noise, highest):
    waveform = white_noise(RATE)
    waveform[100] = highest
    slot, _ = write(tmp_path, waveform)
    assert slot.peak == pytest.approx(abs(highest))
    np.testing.assert_allclose(slot.read(0, RATE) * slot.gain, waveform, atol=0.51 * slot.gain)
    assert slot.read(100, 1)[0] * slot.gain == pytest.approx(highest, abs=1e-6)


def test_a_peak_that_was_measured_elsewhere_is_kept_and_scales_nothing(tmp_path, white_noise):
    slot, _ = write(tmp_path, white_noise(RATE), peak=3.0)
    assert slot.peak == 3.0
    assert slot.gain == 1 / 32768


def test_an_array_of_ones_own_is_filled_in_place_and_what_is_handed_out_is_ones_own(tmp_path, white_noise):
    slot, _ = write(tmp_path, white_noise(RATE))
    batch = np.zeros((2, 100), np.int16)
    assert slot.read(50, 100, batch[1]).base is batch
    np.testing.assert_array_equal(batch[1], slot.read(50, 100))
    assert not batch[0].any()
    found = slot.read(0, 10)
    found[:] = 0
    assert slot.read(0, 10).any()


def test_a_recording_leaves_its_neighbours_alone(tmp_path, white_noise):
    slot, _ = write(tmp_path, white_noise(100), offset=50, before=b"\x07" * 400)
    content = shard_path(tmp_path, 0).read_bytes()
    assert content[:100] == content[300:] == b"\x07" * 100
    assert slot.read(0, 100).tobytes() == content[100:300]
    assert slot.digest == hashlib.sha256(content[100:300]).hexdigest()


@pytest.mark.parametrize(("start", "length"), [(-1, 10), (95, 10), (0, 101), (0, -1), (101, 0)])
def test_an_excerpt_beyond_the_recording_is_refused(tmp_path, white_noise, start, length):
    slot, _ = write(tmp_path, white_noise(100), before=b"\x07" * 4000)  # others lie behind it
    with pytest.raises(InputError, match="of a recording of 100 samples"):
        slot.read(start, length)


@pytest.mark.parametrize("rate", [16_000, 22_050, 11_025])
def test_the_silence_map_knows_a_quiet_stretch(tmp_path, white_noise, rate):
    waveform = white_noise(20 * rate)
    waveform[5 * rate : 10 * rate] *= 1e-4  # -100 dB
    slot, _ = write(tmp_path, waveform, rate=rate)
    second = rate
    assert slot.is_quiet(5 * second, 4 * second, -60)
    assert slot.is_quiet(int(5.5 * second), 4 * second, -60)
    assert not slot.is_quiet(0, 4 * second, -60)
    assert not slot.is_quiet(int(7.9 * second), 4 * second, -60)  # almost half of it sounds
    assert slot.is_quiet(0, 4 * second, -10)
    assert not slot.is_quiet(5 * second, 4 * second, -110)


def test_what_is_below_the_level_is_always_called_quiet(tmp_path):
    generator = np.random.default_rng(3)
    envelope = np.repeat(10 ** generator.uniform(-5, 0, 200), RATE // 10)
    waveform = (0.1 * envelope * generator.standard_normal(len(envelope))).astype(np.float32)
    slot, _ = write(tmp_path, waveform)
    verdicts = []
    for _ in range(500):
        length = int(generator.integers(RATE // 2, 4 * RATE))
        start = int(generator.integers(0, len(waveform) - length + 1))
        threshold = level(waveform[start : start + length], 1) + generator.uniform(0, 6)
        assert slot.is_quiet(start, length, threshold + 1e-6)
        verdicts.append(slot.is_quiet(start, length, threshold - 12))
    assert not all(verdicts)


def test_steady_sound_a_little_above_the_level_is_not_called_quiet(tmp_path, white_noise):
    waveform = white_noise(20 * RATE)
    slot, _ = write(tmp_path, waveform)
    for start in range(0, 15 * RATE, 777):
        # a decibel for rounding, 0.6 for two cells of sixteen at the borders
        assert not slot.is_quiet(start, 4 * RATE, level(waveform, 1) - 1.8)


def test_digital_silence_is_quiet_at_any_level_and_short_excerpts_are_judged_by_what_they_touch(tmp_path, white_noise):
    waveform = np.concatenate([white_noise(RATE), np.zeros(RATE, np.float32)])
    slot, stored = write(tmp_path, waveform)
    assert slot.is_quiet(RATE, RATE, -300)
    assert not slot.is_quiet(100, 1000, -60)
    assert slot.is_quiet(RATE - 500, 1000, -60)
    assert stored.loudness == pytest.approx(level(waveform, 1), abs=0.01)


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")  # Python 3.12 on, beside torch's threads
def test_slots_survive_pickling_and_are_read_by_other_processes(tmp_path, white_noise):
    slot, _ = write(tmp_path, white_noise(4 * RATE))
    slot.read(0, 10)  # mapped before the fork
    copy = pickle.loads(pickle.dumps(slot))
    assert copy == slot
    assert len(pickle.dumps(slot)) < 1000
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            found = pool.starmap(Slot.read, [(slot, start, 1000) for start in (0, 5000, 9000)])
        for start, samples in zip((0, 5000, 9000), found, strict=True):
            np.testing.assert_array_equal(samples, slot.read(start, 1000))


def test_another_pack_in_the_same_place_is_not_taken_for_the_first(tmp_path, white_noise):
    first, _ = write(tmp_path, white_noise(100, seed=1))
    before = first.read(0, 100)
    shard_path(tmp_path, 0).unlink()
    second, _ = write(tmp_path, white_noise(100, seed=2))
    second = Slot(**(vars(second) | {"pack": "another"}))
    assert (second.read(0, 100) != before).any()


def test_a_shard_that_is_gone_or_cut_is_told_in_a_line(tmp_path, white_noise):
    slot, _ = write(tmp_path, white_noise(100))
    shard_path(tmp_path, 0).write_bytes(b"\0" * 20)
    with pytest.raises(InputError, match="00000.pcm: cut short"):
        slot.read(0, 100)
    shard_path(tmp_path, 0).unlink()
    with pytest.raises(InputError, match="00000.pcm: cannot be read"):
        Slot(**(vars(slot) | {"pack": "another"})).read(0, 100)


@pytest.fixture
def pack_folder(tmp_path, white_noise):
    """A pack of one track with two recordings."""
    parts = []
    path = shard_path(tmp_path, 0)
    path.parent.mkdir()
    path.touch()
    for number in range(2):
        waveform = white_noise(1000, seed=number)
        parts.append(store_recording(path, 1000 * number, RATE, lambda waveform=waveform: [waveform]).to_json())
    line = {"track_id": "a", "shard": 0, "offset": 0, "recordings": parts}
    content = (json.dumps(line) + "\n").encode()
    (tmp_path / "index.jsonl").write_bytes(content)
    header = {"format": FORMAT, "sample_rate": RATE, "digest": "d", "files": {"shards/00000.pcm": 4000}}
    header["index"] = hashlib.sha256(content).hexdigest()
    (tmp_path / "pack.json").write_text(json.dumps(header))
    return tmp_path


def test_a_pack_opens_to_the_slots_of_its_recordings(pack_folder, white_noise):
    pack = read_pack(pack_folder)
    slots = pack_slots(pack, pack.lines[0])
    assert [slot.offset for slot in slots] == [0, 1000]
    for number, slot in enumerate(slots):
        np.testing.assert_allclose(slot.read(0, 1000) * slot.gain, white_noise(1000, seed=number), atol=2e-5)


def test_what_is_known_of_a_recording_survives_json(tmp_path, white_noise):
    _, stored = write(tmp_path, white_noise(3 * RATE))
    assert StoredRecording.from_json(json.loads(json.dumps(stored.to_json()))) == stored


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("pack.json", None, "holds no pack.json.*musictf data pack"),
        ("pack.json", lambda b: b.replace(b"pack/1", b"pack/9"), "format 'musictf-pack/9'"),
        ("pack.json", lambda b: b[:20], "damaged"),
        ("pack.json", lambda b: b'{"format": "musictf-pack/1"}', "damaged"),
        ("pack.json", lambda b: b"[]", "damaged"),
        ("index.jsonl", lambda b: b.replace(b'"a"', b'"b"'), "index.jsonl: is not what was packed"),
        ("index.jsonl", None, "damaged"),
        ("shards/00000.pcm", lambda b: b[:-2], "00000.pcm: has 3998 bytes instead of 4000"),
        ("shards/00000.pcm", lambda b: b + b"x", "00000.pcm: has 4001 bytes"),
        ("shards/00000.pcm", None, "00000.pcm: is missing"),
    ],
)
def test_a_damaged_pack_is_refused_in_one_line(pack_folder, name, change, reason):
    path = pack_folder / name
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=reason) as caught:
        read_pack(pack_folder)
    assert "\n" not in str(caught.value)
    assert str(pack_folder) in str(caught.value)


def test_samples_that_lie_elsewhere_are_not_looked_for(pack_folder):
    shard_path(pack_folder, 0).unlink()
    assert len(read_pack(pack_folder, has_samples=False).lines) == 1
