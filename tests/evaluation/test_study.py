"""One study: everything chosen on validation, the test split read once, after that."""

import json

import numpy as np
import pytest
from safetensors import safe_open

from musictf.annotations import Beats, Chords, write_beats, write_chords
from musictf.evaluation import study as module
from musictf.evaluation.probe_run import probe
from musictf.evaluation.study import with_intervals
from musictf.results.statistics import resample_counts
from musictf.tasks.tagging import TaggingTask

CHOICES = ("layer", "seed", "readout", "selected", "selection", "decoder")


def scrambled(task, fields, folder):
    """The same track with annotations that have nothing to do with it."""
    if task == "chord":
        path = folder / f"{fields['track_id']}.lab"
        write_chords(path, Chords(np.array([[0.0, 3.3], [3.3, 8.0]]), ["Bb:min", "N"]))
        return fields | {"chords": str(path)}
    if task == "beat":
        path, times = folder / f"{fields['track_id']}.beats", np.arange(0.1, 8.0, 0.37)
        write_beats(path, Beats(times, np.arange(len(times)) % 3 + 1))
        return fields | {"beats": str(path)}
    return fields | {"tags": ["third", "even"] if fields["track_id"] == "t7" else []}


def heads_of(folder):
    """Content of the head files but their names."""
    return {path.relative_to(folder): path.read_bytes() for path in (folder / "heads").rglob("*.safetensors")}


@pytest.mark.parametrize("task", ["tagging", "chord", "beat"])
def test_test_annotations_change_scores_and_not_a_single_choice(task, configured, altered, tmp_path, read_rows):
    other = altered(lambda f: scrambled(task, f, tmp_path) if f["split"] == "test" else f)
    runs = [tmp_path / "run" / "a", tmp_path / "run" / "b"]
    probe(configured(task, runs[0], seeds=[0, 1]))
    probe(configured(task, runs[1], seeds=[0, 1], dataset=other))
    first, second = (read_rows(folder) for folder in runs)
    assert [{key: row[key] for key in CHOICES} for row in first] == [
        {key: row[key] for key in CHOICES} for row in second
    ]
    assert heads_of(runs[0]) == heads_of(runs[1])
    assert [row["scores"] for row in first] != [row["scores"] for row in second]
    assert (runs[0] / "vocabulary.txt").exists() == (task == "tagging")


@pytest.mark.parametrize("task", ["chord", "beat"])
def test_validation_annotations_do_change_choices(task, configured, altered, tmp_path, read_rows):
    other = altered(lambda f: scrambled(task, f, tmp_path) if f["split"] == "valid" else f)
    runs = [tmp_path / "run" / "a", tmp_path / "run" / "b"]
    probe(configured(task, runs[0]))
    probe(configured(task, runs[1], dataset=other))
    first, second = ([row["selection"] for row in read_rows(folder)] for folder in runs)
    assert first != second


def test_the_test_split_is_decoded_after_every_choice_and_once_a_row(configured, tmp_path, monkeypatch, read_rows):
    order, settings = [], []
    original = module.decoded

    def spy(task, head, readout, split, decoder):
        name = {2: "valid", 3: "test"}[len(split.references)]
        order.append((name, head.layer, decoder["name"]))
        settings.append((head.layer, decoder))
        return original(task, head, readout, split, decoder)

    monkeypatch.setattr(module, "decoded", spy)
    probe(configured("beat", tmp_path / "run"))
    names = [name for name, *_ in order]
    assert names == sorted(names, reverse=True)  # all of valid before all of test
    tested = [entry for entry in order if entry[0] == "test"]
    assert len(tested) == len(set(tested)) == len(read_rows(tmp_path / "run")) == 4
    assert settings[:4] == settings[4:]  # what validation scored is what meets the test split
    assert settings[4:] == [(row["layer"], row["decoder"]) for row in read_rows(tmp_path / "run")]


def test_the_chosen_layer_is_the_best_on_validation_even_where_it_is_not_on_test(finished, read_rows):
    rows = [row for row in read_rows(finished) if row["selection"]]
    cells = {(row["backbone"]["kind"], row["readout"], row["seed"]) for row in rows}
    for cell in cells:
        primary = rows_of(rows, cell)
        (chosen,) = [row for row in primary if row["selected"]]
        assert chosen["selection"]["value"] == max(row["selection"]["value"] for row in primary)


def rows_of(rows, cell):
    """Rows of the decoder that chooses, one a layer."""
    found = [row for row in rows if (row["backbone"]["kind"], row["readout"], row["seed"]) == cell]
    return [row for row in found if row["decoder"]["name"] == found[0]["decoder"]["name"]]


def test_heads_are_written_with_labels_layer_and_choices(finished, read_rows):
    rows = [row for row in read_rows(finished) if row["selection"]]
    for row in rows:
        name = f"{row['task']}_{row['readout']}_seed{row['seed']}.safetensors"
        with safe_open(str(finished / "heads" / row["backbone"]["kind"] / name), framework="pt") as file:
            about = json.loads(file.metadata()["musictf"])
            assert file.get_tensor(f"layer{row['layer']}.weight").ndim == 2
        primary = row["decoder"]["name"] in {"argmax", "peaks", "mean_probability"}
        assert not primary or about["selections"][str(row["layer"])] == row["selection"]
        assert not row["selected"] or about["selected"] == row["layer"]
        assert about["labels"] == (["even", "third"] if row["task"] == "tagging" else [])


def test_intervals_of_scores_over_the_whole_split_come_from_resampled_tracks():
    task = TaggingTask()
    task.prepare([["a"], ["b"]])
    generator = np.random.default_rng(0)
    references = [["a"] if k % 2 else ["b"] for k in range(40)]
    estimates = [np.array([0.3 * (k % 2), 0.3 * (k % 2 == 0)]) + generator.random(2) for k in range(40)]
    scores = task.score(references, estimates)
    groups = [str(k) for k in range(40)]
    resampled = task.resample(references, estimates, resample_counts(groups))
    found = with_intervals(scores, resampled, groups)
    for name in ("map", "roc_auc"):
        low, high = found[name]["ci95"]
        assert low < found[name]["mean"] == scores.corpus[name] < high
        assert 0.1 < high - low < 0.5
        assert found[name]["n"] == 40
