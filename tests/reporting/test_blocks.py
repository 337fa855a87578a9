"""Blocks of a report: order, marks, notes and what may not be compared."""

import io
import subprocess
import sys

import pytest
from rich.console import Console

from musictf.commands.report import main
from musictf.reporting.comparison_blocks import summary_table
from musictf.reporting.render import print_terminal
from musictf.reporting.report import write_report
from musictf.reporting.table_lines import decimal
from musictf.results.systems import system_of


def test_markdown_table_is_regular_and_bold_at_the_best(baselines, capsys):
    write_report([baselines], "md")
    out = capsys.readouterr().out
    table = [line for line in out.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert "**.800** [.780 .820]" in out
    assert "beats" in out
    assert out.count("**.") == 1


def test_html_is_self_contained_and_escaped(tmp_path, row, run_folder):
    folder = run_folder(tmp_path / "r", [row(preset="<script>alert(1)</script>")])
    write_report([folder], output=tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page


def test_latex_escapes_underscores(baselines, capsys):
    write_report([baselines], "latex")
    out = capsys.readouterr().out
    assert r"f\_measure" in out
    assert r"\textbf{.800}" in out
    assert "−" not in out


def test_terminal_table_shows_means_intervals_and_gains(baselines, capsys):
    write_report([baselines])
    out = capsys.readouterr().out
    assert all(text in out for text in (".700", "[.680 .720]", "Gain over the baselines", "majority"))


def test_a_narrow_terminal_shows_the_headline_and_says_what_is_left_out(row):
    scores = dict.fromkeys(("f_measure", "cemgil", "cmlt", "amlt", "downbeat_f_measure"), 0.5)
    out = io.StringIO()
    print_terminal(summary_table([row(scores=scores)]), "", Console(file=out, width=76))
    assert "f_measure" in out.getvalue()
    assert "no room for cmlt, amlt, downbeat_f_measure" in out.getvalue()
    assert "…" not in out.getvalue()
    assert out.getvalue().count("[.480 .520]") == 2


def test_help_is_fast_and_usage_errors_exit_with_two():
    code = "import sys, musictf.commands.report as r\n"
    code += "try: r.main(['--help'])\nfinally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "examples:" in done.stdout
    loaded = set(done.stderr.split())
    assert not loaded & {"matplotlib", "rich", "torch", "numpy", "wandb", "mir_eval"}
    with pytest.raises(SystemExit) as error:
        main(["runs", "--format", "pdf"])
    assert error.value.code == 2


def test_decimal_drops_the_leading_zero_only():
    assert [decimal(value) for value in (0.5, 1.0, -0.25, 10.5, float("nan"))] == [
        ".500",
        "1.000",
        "-.250",
        "10.500",
        "–",
    ]


def test_baselines_of_other_shapes_are_not_seeds_of_one():
    def row(kind, **backbone):
        return {"backbone": {"kind": kind, "preset": "vit1d_mini", "digest": "a", **backbone}}

    assert system_of(row("random", shape="x")) != system_of(row("random", shape="y"))
    assert system_of(row("random", shape="x", digest="b")) == system_of(row("random", shape="x"))
    assert system_of(row("mel")) != system_of(row("mel", digest="b"))


def test_the_ceiling_is_last_never_bold_and_no_baseline(row, texts):
    unprobed = {"selection": None, "layer": 0}
    rows = [row("oracle", 1.0, readout="targets", decoder={"name": name}, **unprobed) for name in ("peaks", "dbn")]
    rows += [row("majority", 0.1, readout="constant", decoder={"name": "constant"}, **unprobed)]
    rows += [row("classical", 0.5, readout="audio", decoder={"name": "librosa"}, **unprobed)]
    rows += [row(value=0.7), row("chroma", 0.6)]
    (block,) = summary_table(rows)
    assert texts(block, "system") == [
        *("pretrained vit1d_mini", "chroma", "classical", "majority"),
        *("oracle (ceiling)", "oracle (ceiling)"),
    ]
    assert [bool(line.best) for line in block.lines] == [True, False, False, False, False, False]
    assert block.notes == []
    # Nothing was trained, so neither a layer nor a number of seeds means anything.
    assert texts(block, "layer") == ["3", "3", "–", "–", "–", "–"]
    assert texts(block, "seeds") == ["1", "1", "–", "–", "–", "–"]


def test_the_ceiling_is_not_bold_where_it_is_reached_either(row):
    (block,) = summary_table([row(value=1.0), row("oracle", 1.0, selection=None)])
    assert [(line.kind, bool(line.best)) for line in block.lines] == [("pretrained", True), ("oracle", False)]


@pytest.mark.parametrize(("value", "notes"), [(0.5, 0), (0.65, 1), (0.8, 2)])
def test_a_classical_system_stands_beside_every_decoder(row, value, notes):
    classical = row("classical", value, selection=None, readout="audio", decoder={"name": "librosa"})
    (block,) = summary_table([row(value=0.6), row(value=0.7, decoder={"name": "dbn"}), classical])
    bold = {line.decoder for line in block.lines if line.best}
    assert bold == {name for name, own in (("peaks", 0.6), ("dbn", 0.7)) if own > value} | (
        {"librosa"} if value > 0.7 else set()
    )
    assert sum("the baseline classical beats" in note for note in block.notes) == notes


@pytest.mark.parametrize("kind", ["mfcc", "chroma", "random", "mel"])
def test_every_probed_baseline_that_wins_is_named(row, kind):
    (block,) = summary_table([row(value=0.7), row(kind, 0.8, layer=0)])
    assert any(f"the baseline {kind}" in note and ".800 > .700" in note for note in block.notes)


def test_probes_of_other_settings_are_other_systems_named_by_what_differs(row, texts):
    features = {"excerpt_hop": 63, "precision": "float16", "batch_size": 16, "memory_gib": 8.0}
    rows = [
        row(value=0.7, features=features, probe={"steps": 600, "patience": 3}),
        row(value=0.6, seed=1, features=features | {"excerpt_hop": 32}, probe={"steps": 600, "patience": 3}),
        row("mel", 0.9, features=features, probe={"steps": 300, "patience": 3}),
        row("majority", 0.1, selection=None, features=features, probe={"steps": 300}, decoder={"name": "constant"}),
    ]
    (block,) = summary_table(rows)
    assert texts(block, "system") == [
        "pretrained vit1d_mini (excerpt_hop=32, steps=600)",
        "pretrained vit1d_mini (excerpt_hop=63, steps=600)",
        "mel (excerpt_hop=63, steps=300)",
        "majority",
    ]
    assert texts(block, "seeds")[:2] == ["1", "1"]
    (note,) = block.notes  # the mel does not beat what was probed otherwise
    assert "not the same (excerpt_hop, steps)" in note


def test_settings_that_change_no_number_make_no_other_system(row, texts):
    rows = [row(seed=seed, features={"excerpt_hop": 63, "batch_size": 4 * (seed + 1)}) for seed in range(2)]
    (block,) = summary_table(rows)
    assert (texts(block, "system"), texts(block, "seeds")) == (["pretrained vit1d_mini"], ["2"])


def test_rows_that_do_not_record_their_settings_are_kept_apart(row, texts):
    (block,) = summary_table([row(value=0.7), row(value=0.6, seed=1, probe={"steps": 600})])
    assert sorted(texts(block, "system")) == [
        "pretrained vit1d_mini",
        "pretrained vit1d_mini (settings not recorded)",
    ]
    assert any("not recorded by every run" in note for note in block.notes)


def test_rows_say_which_scores_are_shown_and_which_have_no_better_or_worse(row):
    scores = {"coverage": 0.9, "root": 0.6, "majmin": 0.5}
    listed = {"table_scores": ["majmin", "root", "coverage"], "descriptive_scores": ["coverage"]}
    (block,) = summary_table([row(task="chord", scores=scores, **listed), row("mel", task="chord", scores=scores)])
    assert block.score_names == ("majmin", "root", "coverage")
    assert all(line.best == {"majmin", "root"} for line in block.lines)
    (block,) = summary_table([row(task="chord", scores={"root": 0.6}, **listed)])
    assert block.score_names == ("majmin", "root")  # the headline stays, though no row has it


def test_rows_without_the_field_show_all_their_scores(row):
    unlisted = {"table_scores": [], "descriptive_scores": []}
    for rows in ([row(task="chord", scores={"b": 0.1, "a": 0.2}, **unlisted)], [row(task="mood", scores={"b": 1.0})]):
        assert summary_table(rows)[0].score_names == tuple(rows[0]["scores"])


def unseen(value, scored=10, seen=True):
    counts = {"known": True, "counts": {}}
    scores = {"f_measure": {"mean": value, "ci95": [value - 0.1, value + 0.1], "n": scored}}
    return {"leakage": counts} | ({"unseen": {"scored": scored, "scores": scores if scored else {}}} if seen else {})


def test_scores_without_the_tracks_seen_in_pretraining_are_below_the_table(row):
    rows = [row(value=0.7, **unseen(0.55)), row("mel", 0.6, **unseen(0.6))]
    (block,) = summary_table([*rows, row("oracle", 1.0, selection=None, **unseen(0.99))])
    (note,) = block.notes
    assert note == (
        "pretrained vit1d_mini, sequence, decoder peaks: without the 20 test tracks that pretraining has seen: "
        "f_measure .550 [.450 .650]; on the same tracks mel .600"
    )


def test_baselines_of_a_run_with_other_seen_tracks_are_not_compared(row):
    rows = [row(value=0.7, **unseen(0.55)), row("mel", 0.6, **unseen(0.6, scored=12))]
    assert "on the same tracks" not in summary_table(rows)[0].notes[0]


def test_without_seen_tracks_several_seeds_bring_their_own_bounds(row):
    rows = [row(value=0.7, seed=seed, **unseen(0.5 + seed / 10)) for seed in range(2)]
    note = summary_table(rows)[0].notes[-1]
    assert "f_measure .550 [.450 .650]" in note
    assert "means of the seeds' own bounds" in note


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"leakage": {"known": False}}, "is unknown: the backbone carries no list"),
        ({"leakage": None}, "was not checked"),
        (unseen(0.0, scored=0), "pretraining has seen all 30 test tracks"),
        (unseen(0.0, seen=False), None),
        ({}, None),
    ],
)
def test_what_is_known_of_leakage_is_in_a_note_on_the_pretrained_system(row, changes, message):
    (block,) = summary_table([row(**changes), row("mel", 0.6, **changes)])
    if message is None:
        assert block.notes == []
    else:
        (note,) = block.notes
        assert note.startswith("pretrained vit1d_mini")
        assert message in note
