"""The listening page's file: what it embeds, where in time, and what it refuses."""

import base64
import html
import io
import json
import re
from dataclasses import replace

import matplotlib
import matplotlib.image
import numpy as np
import pytest
import soundfile

from musictf.annotations import Beats, Chords
from musictf.errors import InputError
from musictf.reporting.listening import ListeningTrack, listening_page

RATE, HOP = 16_000, 512
NASTY = "</script><b>&amp;\"' {{data}} ü 音\u2028\\u003c"


def a_track(seconds=3.0, bands=32, **changes):
    generator = np.random.default_rng(0)
    waveform = (0.1 * generator.standard_normal(round(seconds * RATE))).astype(np.float32)
    frames = 1 + len(waveform) // HOP
    log_mel = generator.uniform(-60, 0, (bands, frames)).astype(np.float32)
    track = ListeningTrack(
        title="track", waveform=waveform, sample_rate=RATE, log_mel=log_mel, mel_times=np.arange(frames) * HOP / RATE
    )
    return replace(track, **changes)


def slot(page, name):
    return re.search(rf'<script type="[^"]*" id="{name}">(.*?)</script>', page, re.DOTALL)[1]


def page_of(track, tmp_path):
    page = listening_page(track, tmp_path / "page.html").read_text(encoding="utf-8")
    return page, json.loads(slot(page, "data"))


def lanes(track, tmp_path, kind):
    return [lane for lane in page_of(track, tmp_path)[1]["lanes"] if lane["kind"] == kind]


def levels(src, palette):
    """What an image says, 0 to 1: each colour looked up in its map."""
    image = matplotlib.image.imread(io.BytesIO(base64.b64decode(src.removeprefix("data:image/png;base64,"))))
    colours = matplotlib.colormaps[palette](np.arange(256), bytes=True)[:, :3]
    table = {tuple(colour): level for level, colour in enumerate(colours.tolist())}
    pixels = np.round(image[..., :3] * 255).astype(int)
    return np.array([[table[tuple(pixel)] for pixel in row] for row in pixels.tolist()]) / 255


# --- the file ---


def test_the_sound_comes_back_sample_for_sample(tmp_path):
    track = a_track()
    page, data = page_of(track, tmp_path)
    heard, rate = soundfile.read(io.BytesIO(base64.b64decode(slot(page, "flac"))), dtype="float32")
    assert rate == RATE
    assert data["duration"] == len(track.waveform) / RATE
    np.testing.assert_allclose(heard, track.waveform, atol=1.01 / 2**15, rtol=0)


def test_sound_beyond_full_scale_is_turned_down_not_clipped(tmp_path):
    waveform = 2.5 * np.sin(np.arange(RATE) / 20).astype(np.float32)
    page, _ = page_of(a_track(1.0, waveform=waveform), tmp_path)
    heard, _ = soundfile.read(io.BytesIO(base64.b64decode(slot(page, "flac"))), dtype="float32")
    np.testing.assert_allclose(heard, waveform / np.abs(waveform).max(), atol=1e-4, rtol=0)


def test_the_file_loads_nothing_and_has_no_empty_slot(tmp_path):
    page, _ = page_of(a_track(matrices={"m": (np.arange(4.0), np.eye(4))}), tmp_path)
    assert not re.findall(r"""(?:https?:|//)[\w-]+\.[a-z]{2,}|<link rel="style|<script src|@import|url\(""", page)
    assert not re.findall(r"\{\{\w*\}\}", page)
    assert "default-src 'none'" in page


def test_no_title_or_name_breaks_out(tmp_path):
    names = {
        "chords": {NASTY: Chords(np.array([[0.0, 1.0]]), ["C:maj"])},
        "curves": {NASTY: (np.arange(3.0), np.arange(3.0))},
        "matrices": {NASTY: (np.arange(3.0), np.eye(3))},
    }
    page, data = page_of(a_track(title=NASTY, subtitle=NASTY, **names), tmp_path)
    assert page.count("</script>") == 3
    assert "<b>&" not in page
    assert html.unescape(re.search(r"<h1>(.*?)</h1>", page, re.DOTALL)[1]) == NASTY
    assert data["lanes"][3]["name"] == data["lanes"][4]["name"] == data["matrices"][0]["name"] == NASTY


def test_what_is_missing_has_no_lane(tmp_path):
    _, data = page_of(a_track(), tmp_path)
    assert [lane["kind"] for lane in data["lanes"]] == ["ruler", "waveform", "spectrogram"]
    assert data["matrices"] == []


def test_same_track_same_bytes(tmp_path):
    one, other = (listening_page(a_track(), tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert one == other


# --- waveform and spectrogram ---


@pytest.mark.parametrize("seconds", [0.05, 1.0, 4.3])
def test_peaks_hold_every_extreme(tmp_path, seconds):
    waveform = np.zeros(round(seconds * RATE), np.float32)
    sample = len(waveform) * 2 // 3
    waveform[sample], waveform[sample + 1] = 0.5, -0.25
    _, data = page_of(a_track(seconds, waveform=waveform), tmp_path)
    peaks = np.frombuffer(base64.b64decode(data["peaks"]), np.int8).reshape(-1, 2)
    assert len(peaks) <= 16_384
    assert (peaks.min(), peaks.max()) == (-64, 127)
    assert int(peaks[:, 1].argmax()) == int(sample / RATE / data["peak_seconds"])
    assert len(peaks) * data["peak_seconds"] >= seconds


def test_a_frame_is_drawn_around_its_centre_and_low_bands_below(tmp_path):
    log_mel = np.full((5, 9), -100.0)
    log_mel[1, 4], log_mel[2, 0] = -10.0, -45.0
    times = 0.5 + 0.1 * np.arange(9)
    _, data = page_of(a_track(log_mel=log_mel, mel_times=times), tmp_path)
    spectrogram = data["spectrogram"]
    image = levels(spectrogram["tiles"][0]["src"], "magma")
    row, column = np.unravel_index(image.argmax(), image.shape)
    assert row == 3  # counted from the top: the second band from below
    assert spectrogram["start"] + (column + 0.5) * spectrogram["step"] == pytest.approx(times[4])
    assert image[2, 0] == pytest.approx(0.5, abs=0.003)  # 35 dB below the loudest, of 70
    assert image[0, 0] == 0


def test_a_long_spectrogram_is_cut_without_gap_or_overlap(tmp_path):
    frames = 10_000
    ramp = np.linspace(-70, 0, frames)[None].repeat(2, axis=0)
    _, data = page_of(a_track(log_mel=ramp, mel_times=0.032 * np.arange(frames)), tmp_path)
    tiles = data["spectrogram"]["tiles"]
    assert len(tiles) > 1
    assert max(tile["columns"] for tile in tiles) <= 8000
    whole = np.concatenate([levels(tile["src"], "magma") for tile in tiles], axis=1)
    np.testing.assert_allclose(whole[0], ramp[0] / 70 + 1, atol=0.003)
    assert [tile["first"] for tile in tiles] == np.cumsum([0, *(tile["columns"] for tile in tiles)])[:-1].tolist()


def test_frequencies_stand_at_their_bands(tmp_path):
    hertz = np.array([100.0, 500.0, 1000.0, 2000.0, 3000.0])
    track = a_track(bands=5, mel_hz=hertz)
    labels = {text: share for share, text in page_of(track, tmp_path)[1]["spectrogram"]["rows"]}
    assert labels["1 kHz"] == pytest.approx(0.5)
    assert labels["500 Hz"] == pytest.approx(0.3)
    assert "4 kHz" not in labels


# --- lanes ---


def test_chords_keep_their_times_and_are_written_as_musicians_do(tmp_path):
    chords = Chords(np.array([[0.0, 0.51234], [0.51234, 2.0], [2.0, 3.0], [3.0, 4.0]]), ["Bb:min7/b3", "N", "X", "G"])
    (lane,) = lanes(a_track(chords={"annotated": chords}), tmp_path, "chords")
    np.testing.assert_allclose(np.column_stack([lane["starts"], lane["ends"]]), chords.intervals, atol=1e-4)
    assert lane["labels"] == ["B♭m7/b3", "N", "X", "G"]
    assert lane["names"] == ["B♭", "N", "X", "G"]
    assert lane["roots"] == [10, -1, -2, 1]


def test_beats_onsets_and_curves_keep_their_order_and_times(tmp_path):
    beats = Beats(np.array([0.1, 0.6, 1.1]), np.array([2, 1, 2]))
    curve = (np.array([0.0, 0.5, 2.0]), np.array([3.0, -1.25, 2.0]))
    names = {"second": np.array([1.0]), "first": np.array([])}
    track = a_track(beats={"a": beats, "b": Beats(beats.times)}, onsets=names, curves={"c": curve})
    one, other = lanes(track, tmp_path, "beats")
    assert (one["times"], one["downs"], other["downs"]) == ([0.1, 0.6, 1.1], [0, 1, 0], None)
    assert [lane["name"] for lane in lanes(track, tmp_path, "onsets")] == ["second", "first"]
    (drawn,) = lanes(track, tmp_path, "curve")
    assert (drawn["times"], drawn["values"]) == ([0.0, 0.5, 2.0], [3.0, -1.25, 2.0])
    assert (drawn["low"], drawn["high"], drawn["note"]) == (-1.25, 3.0, "−1.25 to 3")


# --- self-similarity ---


def drawn_matrix(track, tmp_path):
    (matrix,) = page_of(track, tmp_path)[1]["matrices"]
    return matrix, levels(matrix["src"], "cividis")[::-1]  # first moment first


def test_a_small_matrix_is_drawn_as_it_is(tmp_path):
    similarity = np.random.default_rng(0).uniform(-1, 1, (40, 40))
    times = 0.25 + 0.5 * np.arange(40)
    matrix, image = drawn_matrix(a_track(matrices={"m": (times, similarity)}), tmp_path)
    expected = np.clip((similarity - matrix["low"]) / (matrix["high"] - matrix["low"]), 0, 1)
    np.testing.assert_allclose(image, expected, atol=0.008)  # cividis repeats a few colours
    assert (matrix["start"], matrix["end"]) == pytest.approx((0.0, 20.0))


def test_a_big_matrix_is_averaged_in_its_place(tmp_path):
    number = 1300  # no multiple of the image's size
    position = np.linspace(-1, 1, number)
    similarity = np.broadcast_to(position, (number, number))
    matrix, image = drawn_matrix(a_track(matrices={"m": (np.arange(number) * 0.1, similarity)}), tmp_path)
    assert image.shape == (512, 512)
    centres = (np.arange(512) + 0.5) / 512 * 2 - 1
    value = matrix["low"] + image[100] * (matrix["high"] - matrix["low"])
    np.testing.assert_allclose(value[10:-10], centres[10:-10], atol=0.016)


def test_uneven_times_lie_where_they_belong(tmp_path):
    times = np.array([0.0, 1.0, 2.0, 3.0, 13.0, 23.0, 33.0, 43.0])
    similarity = np.full((8, 8), -1.0)
    similarity[:, 4] = 1.0  # from 8 to 18 s
    matrix, image = drawn_matrix(a_track(matrices={"m": (times, similarity)}), tmp_path)
    seconds = matrix["start"] + (np.arange(512) + 0.5) / 512 * (matrix["end"] - matrix["start"])
    bright = seconds[image[0] > 0.5]
    assert (bright.min(), bright.max()) == pytest.approx((8.0, 18.0), abs=0.2)


def test_a_matrix_of_one_value_is_no_division_by_zero(tmp_path):
    matrix, _ = drawn_matrix(a_track(matrices={"m": (np.arange(5.0), np.ones((5, 5)))}), tmp_path)
    assert (matrix["low"], matrix["high"]) == (1.0, 1.0)


# --- refusals ---

UP, DOWN = np.array([0.0, 1.0, 2.0]), np.array([0.0, 2.0, 1.0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"waveform": np.zeros(0, np.float32)}, "waveform has shape"),
        ({"waveform": np.zeros((2, 9), np.float32)}, "waveform has shape"),
        ({"waveform": np.array([0.0, np.nan], np.float32)}, "waveform: holds NaN"),
        ({"sample_rate": 0}, "sample rate"),
        ({"mel_times": DOWN, "log_mel": np.zeros((4, 3))}, "mel_times: times must ascend, and 1 follows 2"),
        ({"mel_times": np.array([0.0, 1.0, 3.0]), "log_mel": np.zeros((4, 3))}, "not evenly spaced"),
        ({"mel_times": UP[:1], "log_mel": np.zeros((4, 1))}, "at least 2"),
        ({"mel_times": UP}, "log_mel: expected shape"),
        ({"mel_times": UP, "log_mel": np.zeros(3)}, "log_mel: expected shape"),
        ({"mel_times": UP, "log_mel": np.full((4, 3), -np.inf)}, "log_mel: holds NaN"),
        ({"mel_hz": np.arange(7.0)}, "mel_hz: expected shape"),
        ({"chords": {"a": Chords(np.array([[0.0, 1.0], [1.0, 0.5]]), ["C", "D"])}}, "chords 'a': times must ascend"),
        ({"chords": {"a": Chords(np.array([[1.0, 1.0]]), ["C"])}}, "ends before its start"),
        ({"chords": {"a": Chords(np.array([[0.0, 1.0]]), ["C", "D"])}}, "chords 'a': expected shape"),
        ({"beats": {"a": Beats(DOWN)}}, "beats 'a': times must ascend"),
        ({"onsets": {"a": np.array([0.0, np.nan])}}, "onsets 'a': holds NaN"),
        ({"curves": {"a": (UP, UP[:2])}}, "curve 'a': expected shape"),
        ({"curves": {"a": (UP, np.array([0.0, np.inf, 1.0]))}}, "curve 'a': holds NaN"),
        ({"matrices": {"a": (UP, np.zeros((3, 2)))}}, "matrix 'a': expected shape"),
        ({"matrices": {"a": (UP, np.full((3, 3), 2.0))}}, "no cosine similarity"),
        ({"matrices": {"a": (UP, np.full((3, 3), np.nan))}}, "matrix 'a': holds NaN"),
        ({"matrices": {"a": (DOWN, np.eye(3))}}, "matrix 'a': times must ascend"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_no_file(tmp_path, changes, message):
    out = tmp_path / "page.html"
    with pytest.raises(InputError, match=re.escape(message)) as error:
        listening_page(a_track(title="two\nlines", **changes), out)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
