"""Resampled values in one file a run: added to, never lost, absent where a run has none."""

import numpy as np
import pytest

from musictf.errors import InputError
from musictf.results import resamples as module
from musictf.results.resamples import RESAMPLES, add_resamples, read_resamples, resample_key

FIRST, SECOND = np.linspace(0, 1, 1000), np.linspace(1, 0, 1000)


def test_a_key_names_system_decoder_cell_and_score():
    row = {"backbone": {"kind": "mel"}, "decoder": {"name": "argmax"}, "task": "chord", "readout": "class"}
    assert resample_key(row | {"layer": 2, "seed": 1}, "seg") == "mel/argmax/chord_class_layer2_seed1/seg"


def test_what_was_added_is_read_again_with_6_decimals_and_what_is_undefined(tmp_path):
    add_resamples(tmp_path, {"a/b": FIRST})
    add_resamples(tmp_path, {"a/c": np.where(SECOND > 0.5, np.nan, SECOND)})
    values = read_resamples(tmp_path)
    assert list(values) == ["a/b", "a/c"]
    assert values["a/b"].tolist() == [float(f"{value:.6f}") for value in FIRST]
    assert np.isnan(values["a/c"]).sum() == 500
    with np.load(tmp_path / RESAMPLES) as arrays:  # numpy alone reads the file
        assert arrays["a/b"].shape == (1000,)


def test_a_run_that_goes_on_replaces_its_last_values_and_keeps_the_others(tmp_path):
    add_resamples(tmp_path, {"a": FIRST, "b": FIRST})
    add_resamples(tmp_path, {"b": SECOND, "c": SECOND})
    values = read_resamples(tmp_path)
    assert [values[key][0] for key in "abc"] == [0.0, 1.0, 1.0]


def test_a_run_that_is_killed_while_it_writes_keeps_the_earlier_values(tmp_path, monkeypatch):
    add_resamples(tmp_path, {"a": FIRST})

    def die(path, content):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomically", die)
        with pytest.raises(KeyboardInterrupt):
            add_resamples(tmp_path, {"b": SECOND})
    assert list(read_resamples(tmp_path)) == ["a"]


def test_a_run_without_such_scores_has_no_file(tmp_path):
    add_resamples(tmp_path, {})
    assert not (tmp_path / RESAMPLES).exists()
    assert read_resamples(tmp_path) == {}


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 broken"])
def test_a_broken_file_is_one_line_that_names_it(tmp_path, content):
    (tmp_path / RESAMPLES).write_bytes(content)
    for use in (read_resamples, lambda folder: add_resamples(folder, {"a": FIRST})):
        with pytest.raises(InputError, match=r"resamples\.npz: cannot be read") as caught:
            use(tmp_path)
        assert len(str(caught.value).splitlines()) == 1
