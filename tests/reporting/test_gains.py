"""Paired differences: known ones come back, with the statistics module's interval, over seeds, groups and resamples."""

import numpy as np
import pytest

from musictf.errors import InputError
from musictf.reporting.comparison_blocks import summary_table
from musictf.reporting.gains import gain, with_gains_over_baselines, with_gains_over_run
from musictf.reporting.render import sentence
from musictf.results.read_runs import read_runs
from musictf.results.statistics import interval, mean_interval, paired_difference

GROUPS = [f"album{i // 4}" for i in range(32)]


def base(seed, shape=(32,)):
    return np.random.default_rng(seed).uniform(0.3, 0.7, shape)


@pytest.fixture
def lines(tmp_path, row, run_folder):
    """Lines of systems by kind: ``kind=(seeds, values (S, T))``."""

    def make(groups=GROUPS, **systems):
        rows, per_track = [], []
        for kind, (numbers, values) in systems.items():
            for seed, column in zip(numbers, values, strict=True):
                rows.append(row(kind, float(np.nanmean(column)), seed=seed, digest=f"{kind}-{seed}"))
                if kind not in {"random", "majority"}:
                    rows[-1]["backbone"]["digest"] = kind
                per_track.append((rows[-1], column))
        folder = run_folder(tmp_path / "run", rows, per_track, groups)
        (block,) = summary_table(read_runs([folder]))
        return {line.kind: line for line in block.lines}

    return make


@pytest.fixture
def resampled(tmp_path, row, run_folder):
    """Lines of tagging by kind: ``kind=(value, resamples (S, R))``; ``groups`` by kind."""

    def make(groups=None, **systems):
        for kind, (value, table) in systems.items():
            rows = [row(kind, value, seed=seed, task="tagging") for seed in range(len(table))]
            own = (groups or {}).get(kind, GROUPS)
            run_folder(tmp_path / kind, rows, groups=own, resamples=list(zip(rows, table, strict=True)))
        (block,) = summary_table(read_runs([tmp_path]))
        return block

    return make


def test_a_difference_is_that_of_the_statistics_over_groups(lines):
    first, second = base(0), base(1)
    found = lines(pretrained=([0], [first]), random=([0], [second]))
    difference = gain(found["pretrained"], found["random"], "f_measure")
    expected = paired_difference(first, second, GROUPS)
    assert (difference.difference.mean, difference.difference.low, difference.difference.high) == expected
    assert (difference.tracks, difference.groups, difference.seeds) == (32, 8, 1)
    assert "over 32 tracks in 8 groups" in sentence(difference)


def test_seeds_are_paired_and_drawn(lines):
    first, second = base(2, (3, 32)), base(3, (3, 32))
    found = lines(pretrained=([0, 1, 2], first), random=([2, 1, 0], second[::-1]))
    difference = gain(found["pretrained"], found["random"], "f_measure")
    expected = mean_interval(first - second, GROUPS, resamples=2000)
    assert (difference.difference.low, difference.difference.high) == expected[1:]
    assert difference.difference.mean == pytest.approx(expected[0], abs=1e-12)
    assert sentence(difference).count("and 3 seeds") == 1


def test_what_a_seed_does_to_both_sides_cancels_only_where_seeds_are_paired(lines):
    common, effects = base(4), np.array([[0.0], [0.2], [-0.2]])
    table = common + effects
    paired = lines(pretrained=([0, 1, 2], table + 0.05), mel=([0, 1, 2], table))
    found = gain(paired["pretrained"], paired["mel"], "f_measure").difference
    assert (found.low, found.high) == (pytest.approx(0.05), pytest.approx(0.05))
    crossed = lines(pretrained=([0, 1, 2], table + 0.05), mel=([1, 2, 0], table))
    found = gain(crossed["pretrained"], crossed["mel"], "f_measure").difference
    assert found.high - found.low > 0.1


def test_of_seeds_that_only_some_have_the_common_ones_are_compared(lines):
    common = base(5)
    found = lines(pretrained=([0, 1, 7], [common + 0.1, common + 0.2, common + 0.9]), mel=([1, 0], [common, common]))
    difference = gain(found["pretrained"], found["mel"], "f_measure")
    assert difference.difference.mean == pytest.approx(0.15)
    assert "only the seeds both have: 0, 1" in sentence(difference)


def test_without_a_common_seed_means_are_compared_and_it_is_said(lines):
    common = base(6)
    found = lines(pretrained=([0, 1], [common + 0.1, common + 0.3]), mel=([2], [common]))
    difference = gain(found["pretrained"], found["mel"], "f_measure")
    assert difference.difference.low == pytest.approx(0.2) == difference.difference.high
    assert "no seed in common" in sentence(difference)


def test_what_was_not_probed_is_compared_with_every_seed(lines):
    common = base(7)
    found = lines(pretrained=([3, 4], [common + 0.1, common + 0.3]), classical=([0], [common]))
    difference = gain(found["pretrained"], found["classical"], "f_measure")
    assert (difference.seeds, difference.remark) == (2, "")
    assert difference.difference.mean == pytest.approx(0.2)
    assert (difference.difference.low, difference.difference.high) == (pytest.approx(0.1), pytest.approx(0.3))


def test_tracks_of_one_group_have_no_interval(lines):
    found = lines(["same"] * 32, pretrained=([0], [base(8)]), mel=([0], [base(9)]))
    text = sentence(gain(found["pretrained"], found["mel"], "f_measure"))
    assert "all of one group: no interval" in text
    assert "holds zero" not in text


def test_a_known_difference_is_held_as_often_as_the_interval_says(lines):
    """Per track +.03, with noise that groups and seeds share; 95 % of the intervals should hold .03."""
    generator, held = np.random.default_rng(10), 0
    groups = np.repeat(np.arange(25), 3)
    for _ in range(100):
        noise = generator.normal(0, 0.04, 25)[groups] + generator.normal(0, 0.02, (4, 75))
        noise += generator.normal(0, 0.01, (4, 1))
        second = base(generator.integers(1 << 30), (4, 75))
        found = lines(list(groups), pretrained=(range(4), second + 0.03 + noise), mel=(range(4), second))
        difference = gain(found["pretrained"], found["mel"], "f_measure").difference
        held += difference.low <= 0.03 <= difference.high
    assert 0.88 <= held / 100 <= 1.0


def test_scores_that_are_no_means_are_compared_resample_by_resample(resampled):
    second = base(11, (2, 1000))
    first = second + np.random.default_rng(12).normal(0.1, 0.02, (2, 1000))
    (found,) = with_gains_over_baselines(resampled(pretrained=(0.7, first), mel=(0.6, second))).gains
    draws = np.random.default_rng([0, 1]).multinomial(2, [0.5, 0.5], 1000)
    low, high = interval(((first - second).T * draws).sum(axis=1) / 2, 0.1)
    assert (found.difference.low, found.difference.high) == (pytest.approx(low), pytest.approx(high))
    assert (found.difference.mean, found.tracks, found.groups) == (pytest.approx(0.1), 30, 8)
    # Both vary by .1 and more from resample to resample, together: unpaired, nothing could be said.
    assert found.difference.low > 0.05
    assert np.ptp(np.percentile(second[0], (2.5, 97.5))) > 0.3


@pytest.mark.parametrize("fault", ["groups", "length"])
def test_resamples_of_other_tracks_or_groups_are_not_compared(resampled, fault):
    groups = {"mel": [*GROUPS[:-1], "another"]} if fault == "groups" else None
    second = base(13, (1, 100 if fault == "length" else 1000))
    block = with_gains_over_baselines(resampled(groups, pretrained=(0.7, base(14, (1, 1000))), mel=(0.6, second)))
    assert "n/a (resampled over other tracks or groups)" in sentence(block.gains[0])


def test_gains_are_one_a_baseline_and_decoder_and_never_against_what_was_not_probed(row):
    kinds = ("pretrained", "random", "mel", "mfcc", "chroma")
    rows = [row(kind, decoder={"name": decoder}) for kind in kinds for decoder in ("peaks", "dbn")]
    rows += [row("oracle", 1.0, selection=None, decoder={"name": name}) for name in ("peaks", "dbn")]
    rows += [row(kind, selection=None, decoder={"name": kind}) for kind in ("classical", "majority")]
    (block,) = summary_table(rows)
    against = [(found.line.decoder, found.against.kind) for found in with_gains_over_baselines(block).gains]
    assert against == [(decoder, kind) for decoder in ("dbn", "peaks") for kind in kinds[1:]]


def test_baselines_that_were_probed_with_other_settings_are_no_baselines(row):
    rows = [row(probe={"steps": 600}), row("mel", probe={"steps": 600}), row("random", probe={"steps": 300})]
    (block,) = summary_table(rows)
    assert [found.against.kind for found in with_gains_over_baselines(block).gains] == ["mel"]


def test_a_baseline_of_other_settings_is_compared_and_it_is_said(tmp_path, row, run_folder):
    new, old = row(digest="new", probe={"steps": 600}), row(digest="old", probe={"steps": 300})
    mine = read_runs([run_folder(tmp_path / "new", [new], [(new, [0.5, 0.7, 0.9])])])
    before = read_runs([run_folder(tmp_path / "old", [old], [(old, [0.4, 0.7, 0.7])])])
    (block,) = with_gains_over_run(summary_table(mine), before)
    assert "settings of the probes differ" in sentence(block.gains[0])


def test_against_a_baseline_only_pretrained_systems_are_compared_where_there_are_some(row):
    baselines = [row("random"), row("mel"), row("oracle", 1.0, selection=None)]
    old = [row(digest="old"), *baselines]
    (block,) = with_gains_over_run(summary_table([row(digest="new"), *baselines]), old)
    assert [(found.line.kind, found.against.kind) for found in block.gains] == [("pretrained", "pretrained")]
    (block,) = with_gains_over_run(summary_table([row("chroma")]), baselines)
    assert {found.against.kind for found in block.gains} == {"random", "mel"}
    with pytest.raises(InputError, match="no row to compare"):
        with_gains_over_run(summary_table([row(digest="new")]), [row("oracle", 1.0, selection=None)])
