"""Arrays for figures equal those of rows and of the feature store."""

import numpy as np
import pytest

from musictf.audio.spectrogram import LogMel, LogMelConfig
from musictf.features.extract import FeatureConfig
from musictf.inspection.attention_curves import read_curves, track_curves
from musictf.results.names import ATTENTION_CURVES
from musictf.results.rows import RESULTS, read_rows


@pytest.fixture(scope="module")
def track_arrays(inspected):
    """Arrays of every written track, by its name."""
    found = {}
    for path in sorted((inspected[0] / "tracks").glob("*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            found[path.stem] = dict(arrays)
    return found


def test_the_first_test_tracks_are_written(track_arrays, songs):
    assert sorted(track_arrays) == sorted(track.track_id for track in songs.tracks("test")[:3])


def test_arrays_have_the_length_of_their_times(track_arrays):
    for arrays in track_arrays.values():
        number, bins = len(arrays["times"]), len(arrays["bin_times"])
        assert number == 12 * 16_000 // 512 + 1
        assert arrays["log_mel"].shape == (number, 128)
        np.testing.assert_array_equal(arrays["times"], np.arange(number) * 512 / 16_000)
        assert arrays["flux"].shape == (number,)
        assert arrays["mel_hz"].shape == (128,)
        assert all(arrays[name].shape == (number,) for name in arrays if name.startswith("curve/"))
        for name in arrays:
            if name.startswith(("ssm/", "dimension/")):
                assert arrays[name].shape == (bins, bins)
        assert {name for name in arrays if name.startswith("ssm/")} == {"ssm/0", "ssm/1", "ssm/2"}


def test_curves_are_those_of_the_chosen_heads(track_arrays, inspected, songs, small):
    rows = [row for row in read_rows(inspected[0] / RESULTS) if row["task"].startswith("attention_")]
    rows = [row for row in rows if row["backbone"]["kind"] == "pretrained" and row["selected"]]
    track = songs.tracks("test")[0]
    values = read_curves(track_curves(small, [track], FeatureConfig())[0]).values
    names = {name for name in track_arrays[track.track_id] if name.startswith("curve/")}
    assert len(names) == len(rows) >= 4 * len(ATTENTION_CURVES)
    for row in rows:
        name = f"curve/{row['task'].removeprefix('attention_')}/{row['readout']}.l{row['layer']}.h{row['head']}"
        expected = values[:, row["layer"] - 1, row["head"], ATTENTION_CURVES.index(row["readout"])]
        np.testing.assert_allclose(track_arrays[track.track_id][name], expected, atol=1e-6)


def test_unknown_bins_are_nan(track_arrays):
    for arrays in track_arrays.values():
        assert not np.isnan(arrays["dimension/harmony"]).any()
        assert not np.isnan(arrays["ssm/1"]).any()
        assert np.isnan(arrays["dimension/bar"][0]).all()  # before the first downbeat
        known = ~np.isnan(arrays["dimension/bar"]).all(axis=0)
        assert not np.isnan(arrays["dimension/bar"][np.ix_(known, known)]).any()


def test_bands_have_the_frequencies_of_their_filters(track_arrays):
    bank = LogMel(LogMelConfig()).power.mel_scale.fb.double().numpy()  # (frequencies, bands)
    hertz = np.linspace(0, 8000, len(bank))
    centres = (bank * hertz[:, None]).sum(axis=0) / bank.sum(axis=0)
    (mel_hz, *_) = (arrays["mel_hz"] for arrays in track_arrays.values())
    np.testing.assert_allclose(mel_hz[-20:], centres[-20:], rtol=0.008)


def test_class_tokens_have_matrices_for_long_tracks(track_arrays):
    for arrays in track_arrays.values():
        number = len(arrays["excerpt_times"])
        assert np.all(np.diff(arrays["excerpt_times"]) > 0)
        for layer in range(3):
            matrix = arrays[f"class_ssm/{layer}"]
            assert matrix.shape == (number, number)
            np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)
