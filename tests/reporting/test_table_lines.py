"""Lines over several seeds: what is averaged, and that intervals are those of the statistics module."""

import numpy as np
import pytest

from musictf.errors import InputError
from musictf.reporting.comparison_blocks import summary_table
from musictf.reporting.table_lines import BOUNDS, DRAWN, UNGROUPED, mean_over_seeds
from musictf.results.read_runs import groups_of, read_runs, resampled_values, track_values
from musictf.results.statistics import interval, mean_interval, mean_over_drawn_seeds, resample_counts

SCORE = "f_measure"


@pytest.fixture
def seeds(tmp_path, row, run_folder):
    """A run of one system with a table of values (seeds, tracks), read back."""

    def make(table, groups=None, name="run", **changes):
        table = np.asarray(table)
        rows = [row(value=np.nanmean(values), seed=seed, **changes) for seed, values in enumerate(table)]
        return read_runs([run_folder(tmp_path / name, rows, list(zip(rows, table, strict=True)), groups)])

    return make


def grouped_scores(generator, num_seeds=3, num_groups=8, per_group=4, spread=0.02):
    """Scores (seeds, tracks) around .6 whose groups and seeds differ, and the groups."""
    groups = np.repeat(np.arange(num_groups), per_group)
    truth = 0.6 + generator.normal(0, 0.1, num_groups)[groups] + generator.normal(0, 0.03, len(groups))
    return truth + generator.normal(0, spread, num_seeds)[:, None], [f"album{group}" for group in groups]


def test_an_interval_over_seeds_is_that_of_the_statistics_over_groups_and_seeds(seeds):
    table, groups = grouped_scores(np.random.default_rng(0))
    score = mean_over_seeds(seeds(table, groups), SCORE)
    mean, low, high = mean_interval(table, groups)
    assert (score.low, score.high, score.basis) == (low, high, DRAWN)
    assert score.mean == pytest.approx(mean, abs=1e-12)
    # Tracks of an album are alike: drawn one by one they would promise too much.
    _, narrow_low, narrow_high = mean_interval(table)
    assert high - low > 1.3 * (narrow_high - narrow_low)


def test_without_a_list_of_groups_each_track_is_its_own_and_the_table_says_so(seeds):
    table, _ = grouped_scores(np.random.default_rng(1))
    rows = seeds(table)
    score = mean_over_seeds(rows, SCORE)
    _, low, high = mean_interval(table, [f"track{i}" for i in range(table.shape[1])])
    assert (score.low, score.high, score.basis) == (low, high, UNGROUPED)
    assert any("no tracks.csv" in note for note in summary_table(rows)[0].notes)


def test_seeds_that_differ_widen_the_interval(seeds):
    values = np.random.default_rng(2).normal(0.6, 0.01, 40)
    alike = mean_over_seeds(seeds([values, values], range(40), "alike"), SCORE)
    apart = mean_over_seeds(seeds([values - 0.1, values + 0.1], range(40), "apart"), SCORE)
    assert alike.mean == pytest.approx(apart.mean)
    assert apart.high - apart.low > 0.19 > 0.02 > alike.high - alike.low


def test_one_seed_keeps_its_own_interval(seeds):
    (line,) = summary_table(seeds(np.full((1, 5), 0.6), range(5)))[0].lines
    assert (line.scores[SCORE].low, line.scores[SCORE].high) == (pytest.approx(0.58), pytest.approx(0.62))
    assert line.scores[SCORE].basis == ""


@pytest.mark.parametrize("fault", ["file", "seed", "track"])
def test_where_values_are_missing_the_bounds_are_averaged_and_the_table_says_so(seeds, fault, tmp_path):
    table, groups = grouped_scores(np.random.default_rng(3))
    if fault == "track":
        table[1, 0] = np.nan  # undefined with one seed only: the means are over other tracks
    rows = seeds(table, groups)
    path = tmp_path / "run" / "per_track.csv"
    if fault == "file":
        path.unlink()
    if fault == "seed":
        kept = [line for line in path.read_text().splitlines() if ",3,2," not in line]
        path.write_text("\n".join(kept) + "\n")
    score = mean_over_seeds(rows, SCORE)
    means = [row["scores"][SCORE]["mean"] for row in rows]
    assert score.low == pytest.approx(np.mean(means) - 0.02)
    assert score.basis == BOUNDS
    assert f"intervals of several seeds: {BOUNDS}" in summary_table(rows)[0].notes


def test_scores_that_are_no_means_combine_the_seeds_resample_by_resample(tmp_path, row, run_folder):
    table = np.random.default_rng(4).uniform(0.4, 0.6, (3, 1000))
    table[:, 7] = np.nan  # a resample without the class: left out
    rows = [row(value=0.55 + seed / 100, task="tagging", seed=seed) for seed in range(3)]
    resamples = list(zip(rows, table, strict=True))
    read = read_runs([run_folder(tmp_path / "r", rows, groups=range(9), resamples=resamples)])
    score = mean_over_seeds(read, "map")
    draws = np.random.default_rng([0, 1]).multinomial(3, np.full(3, 1 / 3), 1000)
    combined = (draws * table.T).sum(axis=1) / 3
    assert (score.low, score.high) == pytest.approx(interval(combined, 0.56), abs=1e-12)
    assert (score.mean, score.basis) == (pytest.approx(0.56), DRAWN)


def test_resamples_of_a_mean_give_the_interval_of_the_mean():
    table, groups = grouped_scores(np.random.default_rng(5))
    counts = resample_counts(groups)
    resampled = np.stack([counts @ values / counts.sum(axis=1) for values in table])
    assert interval(mean_over_drawn_seeds(resampled)) == pytest.approx(mean_interval(table, groups)[1:], abs=1e-12)


@pytest.mark.parametrize("fault", ["length", "groups", "missing"])
def test_resamples_that_do_not_fit_together_are_not_combined(tmp_path, row, run_folder, fault):
    rows = [row(task="tagging", seed=seed) for seed in range(2)]
    values = [np.full(10, 0.5), np.full(9 if fault == "length" else 10, 0.5)]
    for seed, each in enumerate(rows):
        groups = ["a", "b", "b" if fault == "groups" and seed else "c"]
        resamples = [] if fault == "missing" and seed else [(each, values[seed])]
        run_folder(tmp_path / str(seed), [each], groups=groups, resamples=resamples)
    assert mean_over_seeds(read_runs([tmp_path]), "map").basis == BOUNDS


def test_intervals_over_seeds_and_groups_hold_the_truth_as_often_as_they_say(seeds):
    """Groups and seeds are drawn anew each time: the truth is .6, and 95 % of the intervals should hold it."""
    generator = np.random.default_rng(6)
    held, held_ungrouped = 0, 0
    for trial in range(120):
        table, groups = grouped_scores(generator, num_seeds=5, num_groups=25, per_group=3, spread=0.02)
        score = mean_over_seeds(seeds(table, groups, str(trial)), SCORE)
        held += score.low <= 0.6 <= score.high
        _, low, high = mean_interval(table[:1])
        held_ungrouped += low <= 0.6 <= high
    assert 0.88 <= held / 120 <= 0.99
    assert held_ungrouped / 120 < 0.85  # what one seed and tracks drawn one by one would have claimed


def test_perturbed_rows_do_not_take_the_values_of_the_clean_tracks(seeds):
    table, groups = grouped_scores(np.random.default_rng(7))
    rows = seeds(table, groups)
    clean = {"name": "clean", "amount": None, "unit": ""}
    assert all(track_values(row | {"perturbation": clean}, SCORE) for row in rows)
    noisy = [row | {"perturbation": {"name": "noise", "amount": 20.0, "unit": "dB"}} for row in rows]
    assert not any(track_values(row, SCORE) for row in noisy)
    assert mean_over_seeds(noisy, SCORE).basis == BOUNDS


def test_of_one_seed_a_later_choice_of_layer_replaces_the_earlier(row):
    rows = [row(value=0.6, layer=2, time="2026-01-01"), row(value=0.8, layer=4, time="2026-01-02")]
    (block,) = summary_table(rows)
    (line,) = block.lines
    assert (line.layers, len(line.rows), line.scores[SCORE].mean) == ((4,), 1, 0.8)
    assert any("1 older row" in note for note in block.notes)


def test_two_runs_that_group_a_track_differently_cannot_share_an_interval(tmp_path, row, run_folder):
    for seed, group in enumerate("ab"):
        rows = [row(seed=seed)]
        run_folder(tmp_path / str(seed), rows, [(rows[0], [0.5, 0.6])], groups=["x", group])
    with pytest.raises(InputError, match="track1 is of group 'b', elsewhere of 'a'"):
        groups_of(read_runs([tmp_path]))


def test_a_line_that_is_being_written_is_left_and_a_broken_one_refused(tmp_path, row, run_folder):
    rows = [row()]
    path = run_folder(tmp_path / "r", rows, [(rows[0], [0.5, 0.6])]) / "per_track.csv"
    whole = path.read_text()
    path.write_text(whole + "track2,beat,sequ")
    (read,) = read_runs([tmp_path])
    assert track_values(read, SCORE) == {"track0": 0.5, "track1": 0.6}
    path.write_text(whole.replace("track0,beat,", "track0,"))
    with pytest.raises(InputError, match=r"per_track.csv:2: 8 cells for 9 columns"):
        track_values(read, SCORE)
    path.write_text(whole.replace("0.6", "much"))
    with pytest.raises(InputError, match=r"per_track.csv:3: value 'much'"):
        track_values(read, SCORE)


def test_broken_resamples_are_refused_by_the_name_of_their_file(tmp_path, row, run_folder):
    rows = [row(task="tagging")]
    run_folder(tmp_path / "r", rows, resamples=[(rows[0], [0.5, 0.6])])
    (read,) = read_runs([tmp_path])
    assert resampled_values(read, "map").tolist() == [0.5, 0.6]
    (path,) = tmp_path.rglob("resamples.npz")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"resamples.npz: cannot be read"):
        resampled_values(read, "map")


def test_resamples_without_a_list_of_groups_are_not_combined(tmp_path, row, run_folder):
    rows = [row(task="tagging", seed=seed) for seed in range(2)]
    read = read_runs([run_folder(tmp_path, rows, resamples=[(each, [0.4, 0.6]) for each in rows])])
    assert mean_over_seeds(read, "map").basis == BOUNDS


def test_what_a_probe_writes_is_what_a_report_reads(tmp_path):
    """Rows, track scores, groups and resamples of the probe's own writers: one system of two seeds and its baseline."""
    import soundfile

    from musictf.datasets.base import Track
    from musictf.evaluation.study import Study
    from musictf.evaluation.task_tracks import Corpus, write_tracks
    from musictf.reporting.gains import with_gains_over_baselines
    from musictf.results.rows import Results
    from musictf.tasks.tagging import TaggingTask

    generator, tracks, references = np.random.default_rng(8), [], []
    for index in range(12):
        soundfile.write(tmp_path / f"{index}.wav", np.zeros(160), 16000)
        references.append([tag for tag, period in (("a", 2), ("b", 3)) if index % period == 0])
        own = {"audio": tmp_path / f"{index}.wav", "labels": {"tags": references[-1]}}
        tracks.append(Track(track_id=f"t{index}", split="test", group=f"album{index // 2}", **own))
    corpus = Corpus({"test": tracks}, {"test": references}, {"test": 12})
    task, folder = TaggingTask(), tmp_path / "run"
    task.prepare(references)
    results = Results(folder)
    write_tracks(corpus.tracks["test"], corpus.groups, folder)
    for kind in ("pretrained", "random"):
        for seed in range(2):
            about = {"kind": kind, "digest": f"{kind}{seed * (kind == 'random')}", "shape": "s", "preset": "mini"}
            study = Study(task, corpus, folder, {"schema": 1, "dataset": "tiny", "time": ""}, about)
            cell = {"readout": "sequence", "layer": 1, "seed": seed, "selected": True}
            study.add(cell, {"name": "mean_probability"}, list(generator.uniform(size=(12, 2))))
            results.add(study.rows, study.track_lines)
    (block,) = summary_table(read_runs([folder]))
    assert [(line.kind, len(line.rows), line.scores["map"].basis) for line in block.lines] == [
        ("pretrained", 2, DRAWN),
        ("random", 2, DRAWN),
    ]
    (gain,) = with_gains_over_baselines(block).gains
    assert (gain.tracks, gain.groups, gain.seeds) == (12, 6, 2)
    first, second = (line.scores["map"].mean for line in block.lines)
    assert gain.difference.mean == pytest.approx(first - second)
    assert gain.difference.low < gain.difference.mean < gain.difference.high
