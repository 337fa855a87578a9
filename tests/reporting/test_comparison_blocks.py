import csv
import io

import pytest

from musictf.errors import InputError
from musictf.reporting.comparison_blocks import summary_table
from musictf.reporting.gains import with_gains_over_baselines, with_gains_over_run
from musictf.reporting.render import block_table, sentence
from musictf.reporting.report import write_report
from musictf.results.read_runs import read_runs


def test_rows_are_found_below_and_each_file_counts_once(tmp_path, row, run_folder):
    run_folder(tmp_path / "a" / "b", [row()])
    run_folder(tmp_path / "c", [row(), row(seed=1)])
    assert len(read_runs([tmp_path])) == 3
    assert len(read_runs([tmp_path, tmp_path / "c"])) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such folder"),
        ("", "no rows"),
        ('{"schema": 1, "ta', "jsonl:1: not a whole JSON line"),
        ('{"schema": 2}\n', "schema 1"),
        ('{"schema": 1, "task": "beat", "decoder": {}}\n', "no backbone, .*decoder.name"),
    ],
)
def test_unusable_input_is_one_line_that_says_where(tmp_path, content, message):
    folder = tmp_path / "run"
    if content is not None:
        folder.mkdir()
        (folder / "results.jsonl").write_text(content)
    with pytest.raises(InputError, match=message) as error:
        read_runs([folder])
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_splits_datasets_and_tasks_are_never_mixed(row):
    rows = [row(), row(split="othersplit"), row(dataset="ballroom"), row(task="chord")]
    blocks = summary_table(rows)
    assert [(block.task, block.dataset, len(block.lines)) for block in blocks] == [
        ("beat", "ballroom", 1),
        ("beat", "pop909", 1),
        ("beat", "pop909", 1),
        ("chord", "pop909", 1),
    ]
    assert all("not comparable" in block.heading for block in blocks[:3])
    assert "not comparable" not in blocks[3].heading
    assert "othersplit"[:8] in blocks[2].heading


def test_best_is_marked_within_a_decoder_only(row):
    rows = [row(value=0.7), row("random", 0.6), row(value=0.9, decoder={"name": "dbn"})]
    (block,) = summary_table(rows)
    assert [(line.decoder, line.kind, bool(line.best)) for line in block.lines] == [
        ("dbn", "pretrained", True),
        ("peaks", "pretrained", True),
        ("peaks", "random", False),
    ]


def test_layers_that_validation_did_not_choose_stay_hidden_and_never_win(row, texts):
    rows = [row(value=0.7), row(value=0.9, layer=2, selected=False), row(value=0.7, layer=1, selected=False)]
    (block,) = summary_table(rows)
    assert texts(block, "layer") == ["3"]
    (block,) = summary_table(rows, all_layers=True)
    assert texts(block, "layer") == ["1", "2", "3*"]
    assert [bool(line.best) for line in block.lines] == [False, False, True]


def test_seeds_are_averaged_and_counted(row, texts):
    rows = [row(value=0.6, seed=0, layer=3), row(value=0.8, seed=1, layer=4)]
    (block,) = summary_table(rows)
    assert [texts(block, name) for name in ("seeds", "layer", "f_measure")] == [["2"], ["3, 4"], [".700"]]
    assert block_table(block).rows[0][-1].detail == "[.680 .720]"


def test_a_row_scored_again_replaces_the_older_one_and_the_table_says_so(row, texts):
    rows = [row(value=0.8, time="2026-01-02"), row(value=0.6, time="2026-01-01")]
    (block,) = summary_table(rows)
    assert texts(block, "f_measure") == [".800"]
    assert texts(block, "seeds") == ["1"]
    assert any("1 older row" in note for note in block.notes)


def test_two_backbones_of_one_preset_stay_apart_but_random_weights_are_one_system(row, texts):
    rows = [row(digest="aaaaaaaaaa"), row(digest="bbbbbbbbbb")]
    rows += [row("random", seed=0, digest="r0"), row("random", seed=1, digest="r1")]
    (block,) = summary_table(rows)
    assert texts(block, "system") == [
        "pretrained vit1d_mini aaaaaaaa",
        "pretrained vit1d_mini bbbbbbbb",
        "random vit1d_mini",
    ]
    assert texts(block, "seeds") == ["1", "1", "2"]


def test_a_baseline_that_wins_is_named(row):
    (block,) = summary_table([row(value=0.7), row("random", 0.6), row("mel", 0.8)])
    assert len(block.notes) == 1
    assert "mel beats pretrained vit1d_mini" in block.notes[0]
    assert ".800 > .700" in block.notes[0]


def test_missing_tracks_are_said(row, texts):
    (block,) = summary_table([row(split_changes={"scored": 28}), row("random")])
    assert texts(block, "tracks") == ["28/30", "30"]
    assert any("28 of 30" in note for note in block.notes)


@pytest.mark.parametrize(("value", "wins"), [(0.1, False), (0.65, False), (0.8, True)])
def test_the_majority_answer_stands_beside_every_decoder(row, value, wins):
    constant = row("majority", value, selection=None, readout="constant", layer=0, decoder={"name": "constant"})
    lines = [row(value=0.6), row(value=0.7, decoder={"name": "dbn"}), constant]
    (block,) = summary_table(lines)
    bold = {line.decoder for line in block.lines if line.best}
    assert ("constant" in bold) == wins
    assert ("dbn" in bold) == (value < 0.7)
    assert ("peaks" in bold) == (value < 0.6)
    assert sum("majority beats" in note for note in block.notes) == (value > 0.6) + (value > 0.7)


def test_undefined_values_and_bounds_are_shown_as_such(row):
    undefined = row(valid=None, layer=2)
    undefined["scores"]["f_measure"] = {"mean": 0.4, "ci95": [None, None], "n": 30}
    (block,) = summary_table([undefined, row("mel", scores={})])
    assert [(cells[-1].text, cells[-1].detail) for cells in block_table(block).cells()] == [(".400", ""), ("–", "")]


def test_known_tasks_show_their_scores_and_plug_ins_all_of_theirs(row):
    (chord,) = summary_table([row(task="chord", scores={"sevenths": 0.2, "root": 0.8, "majmin": 0.7})])
    assert chord.score_names == ("majmin", "root")
    (plug_in,) = summary_table([row(task="mood", scores={"valence": 0.2, "arousal": 0.8})])
    assert plug_in.score_names == ("valence", "arousal")
    assert plug_in.headline == "valence"


def test_gain_over_the_baselines_is_paired_over_tracks(baselines):
    (block,) = (with_gains_over_baselines(block) for block in summary_table(read_runs([baselines])))
    over = {gain.against.kind: gain for gain in block.gains}
    assert set(over) == {"random", "mel"}
    assert over["random"].tracks == 30
    assert over["random"].difference.mean == pytest.approx(0.1)
    # The same .1 on every track: unpaired, the interval would be as wide as the spread of the tracks.
    assert over["random"].difference.high - over["random"].difference.low < 1e-6
    assert over["mel"].difference.high < -0.08
    assert "+.100" in sentence(over["random"])


def test_the_readout_that_stands_for_a_system_is_chosen_on_validation(tmp_path, row, run_folder):
    rows = [row(value=0.9, valid=0.5, readout="class"), row(value=0.7, valid=0.6), row("random", 0.6)]
    folder = run_folder(tmp_path / "r", rows, [(each, [0.1, 0.2]) for each in rows])
    (block,) = summary_table(read_runs([folder]))
    assert with_gains_over_baselines(block).gains[0].line.readout == "sequence"


def test_values_of_another_backbone_in_the_same_file_are_not_taken(tmp_path, row, run_folder):
    mine, other, random = row(digest="aaaaaaaaaa"), row(digest="bbbbbbbbbb"), row("random")
    folder = run_folder(tmp_path / "r", [mine, random], [(mine, [0.5, 0.6]), (other, [0.9, 0.9]), (random, [0.4, 0.5])])
    (block,) = summary_table(read_runs([folder]))
    assert with_gains_over_baselines(block).gains[0].difference.mean == pytest.approx(0.1)


def test_only_tracks_in_common_are_compared(tmp_path, row, run_folder):
    rows = [row(), row("random")]
    folder = run_folder(tmp_path / "r", rows, [(rows[0], [0.5, 0.6, float("nan"), 0]), (rows[1], [0.4, 0.5, 0.3])])
    (block,) = summary_table(read_runs([folder]))
    (gain,) = with_gains_over_baselines(block).gains
    assert (gain.tracks, gain.difference.mean) == (2, pytest.approx(0.1))


def test_gain_without_values_per_track_is_not_available(tmp_path, row, run_folder):
    rows = [row(task="tagging"), row("random", task="tagging")]
    (block,) = summary_table(read_runs([run_folder(tmp_path / "r", rows)]))
    assert "n/a (no map per track and no resamples of it)" in sentence(with_gains_over_baselines(block).gains[0])


def test_baseline_replaces_the_baselines_and_must_be_comparable(tmp_path, row, run_folder):
    new, old, elsewhere = row(digest="new"), row(digest="old"), row(digest="old", split="another")
    mine = read_runs([run_folder(tmp_path / "new", [new], [(new, [0.5, 0.7, 0.9])])])
    before = read_runs([run_folder(tmp_path / "old", [old], [(old, [0.4, 0.7, 0.7])])])
    (block,) = with_gains_over_run(summary_table(mine), before)
    assert block.gains[0].difference.mean == pytest.approx(0.1)
    for other in (elsewhere, row(digest="old", decoder={"name": "dbn"}), new):
        rows = read_runs([run_folder(tmp_path / "elsewhere", [other])])
        with pytest.raises(InputError, match="no row to compare"):
            with_gains_over_run(summary_table(mine), rows)


def test_csv_holds_every_score_and_difference_as_numbers(baselines, capsys):
    write_report([baselines], "csv")
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    (pretrained,) = [line for line in lines if line["system"].startswith("pretrained") and not line["against"]]
    assert float(pretrained["mean"]) == 0.7
    assert (pretrained["split_digest"], pretrained["layer"], pretrained["tracks"]) == ("3f2a91c07755", "3", "30")
    assert sorted(line["against"] for line in lines if line["against"]) == [
        "mel (average)",
        "random vit1d_mini (sequence)",
    ]
