"""Tables and figures of details: shaped by the data, averaged over seeds, and equal to what the tasks computed."""

import csv
import io
import re

import numpy as np
import pytest
from rich.console import Console

from musictf.annotations import Chords
from musictf.errors import InputError
from musictf.reporting.detail_figures import class_bars, confusion_figure, details_figures
from musictf.reporting.details import details_tables, mean_details, shape_of, shares, tidy_details
from musictf.reporting.table import csv_text, html_section, latex, markdown, print_table
from musictf.tasks.chord import ChordTask

ROTATION = {
    "maj": {"maj": [6.0, *[0.0] * 11], "N": 2.0},
    "N": {"maj": 1.0, "N": 3.0},
    "min": {"maj": [0.0] * 12, "N": 0.0},
}


def named(tables, ending):
    (table,) = [table for table in tables if table.title.endswith(ending)]
    return table


def words(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg.read_text())


def classes(*values, score="f1"):
    return {"by_class": {name: {"tracks": 5, score: value} for name, value in zip("abc", values, strict=False)}}


def matrix(labels, counts):
    return {"confusion": {"labels": labels, "counts": counts}}


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        (3, "number"),
        (None, "number"),
        (0.0, "number"),
        (["a"], "names"),
        ([], "nothing"),
        ({}, "nothing"),
        ([1, 2], "nothing"),
        ({"half": 1, "double": None}, "column"),
        ({"half": "a"}, "nothing"),
        ({"a": {"tracks": 1, "f1": None}}, "classes"),
        (ROTATION, "rotation"),
        ({"labels": [], "counts": []}, "matrix"),
    ],
)
def test_the_shape_of_details_decides_their_table(value, shape):
    assert shape_of(value) == shape


def test_seeds_are_averaged_number_by_number():
    values = [
        {"a": [1, 2], "b": None, "c": {"d": 0.2}, "e": ["x"]},
        {"a": [3, 2], "b": 0.5, "c": {"d": 0.4}, "e": ["x"]},
    ]
    assert mean_details(values) == {"a": [2.0, 2], "b": 0.5, "c": {"d": pytest.approx(0.3)}, "e": ["x"]}


def test_a_table_by_class_has_a_line_a_class_and_a_column_a_system(row):
    rows = [row(task="genre", seed=seed, details=classes(0.5 + seed / 10, None)) for seed in range(2)]
    rows += [row("mel", task="genre", details=classes(0.25, 1.0))]
    (table,) = details_tables(rows)
    assert table.title == "genre on pop909, decoder peaks: f1 by class"
    assert table.columns == ("class", "tracks", "pretrained vit1d_mini", "mel")
    assert table.rows == (("a", "5", ".550", ".250"), ("b", "5", "–", "1.000"))


def test_a_system_is_shown_by_the_readout_that_validation_prefers(row):
    rows = [
        row(valid=0.6, details={"octaves": {"half": 3}}),
        row(valid=0.7, readout="class", details={"octaves": {"half": 4}}),
    ]
    rows += [row(valid=0.9, layer=1, selected=False, details={"octaves": {"half": 5}})]
    (table,) = details_tables(rows)
    assert table.rows == (("half", "4"),)


def test_counts_stand_in_one_table_and_names_in_another(row):
    details = {"merged": 7, "unknown": None, "unseen": ["jazz"], "scored": ["a", "b"]} | classes(0.5, 0.6)
    tables = details_tables([row(task="genre", details=details), row("mel", task="genre", details=details)])
    assert named(tables, "counts").rows == (("merged", "7", "7"), ("unknown", "–", "–"))
    assert named(tables, "names").rows == (("unseen", "jazz"),)  # the scored classes have lines of their own


def test_decoders_have_tables_of_their_own_with_the_systems_that_have_no_decoder(row):
    rows = [row(details={"merged": 1}), row(details={"merged": 2}, decoder={"name": "dbn"})]
    rows += [row("classical", selection=None, decoder={"name": "librosa"}, details={"merged": 3})]
    tables = details_tables(rows)
    assert [table.title for table in tables] == [
        "beat on pop909, decoder dbn: counts",
        "beat on pop909, decoder peaks: counts",
    ]
    assert [table.rows for table in tables] == [(("merged", "2", "3"),), (("merged", "1", "3"),)]


def test_a_confusion_by_distance_is_in_percent_of_each_reference(row):
    found = shares(ROTATION)
    assert found["maj", "maj"][0] == 0.75
    assert found["N", "N"] == [0.75]
    assert not any(reference == "min" for reference, _ in found)  # never occurs
    (table,) = details_tables([row(task="chord", details={"confusion": ROTATION}), row("mel", task="chord")])
    assert table.columns[1:] == (*map(str, range(12)), "in all")
    assert table.rows[0] == ("maj → maj", "75.0", *["0.0"] * 11, "75.0")
    assert table.rows[1] == ("maj → N", *["–"] * 12, "25.0")
    assert len(table.rows) == 4


def test_small_confusions_are_shown_whole_and_large_ones_by_their_errors(row):
    (table,) = details_tables([row(task="genre", details=matrix(["a", "b"], [[3, 1], [0, 2]]))])
    assert (table.columns, table.rows) == (("reference", "a", "b"), (("a", "3", "1"), ("b", "0", "2")))
    counts = 9 * np.eye(13, dtype=int)
    counts[2, 5], counts[4, 0] = 1, 3
    labels = [f"g{i}" for i in range(13)]
    (table,) = details_tables([row(task="genre", details=matrix(labels, counts.tolist()))])
    assert table.rows == (("g4 → g0", "3", "25.0"), ("g2 → g5", "1", "10.0"))


def test_confusions_are_of_pretrained_systems_or_of_the_first_one(row):
    def systems(*kinds):
        tables = details_tables([row(kind, task="chord", details={"confusion": ROTATION}) for kind in kinds])
        return [re.search(r"peaks, (\w+)", table.title).group(1) for table in tables]

    assert systems("mel", "pretrained", "random") == ["pretrained"]
    assert systems("mel", "chroma") == ["mel"]


def test_the_confusion_of_chords_agrees_with_their_score_by_quality(row):
    """Two ways to the same number: seconds on the diagonal of the confusion, and what mir_eval's majmin says."""
    edges = np.arange(9.0)
    reference = Chords(np.column_stack([edges[:-1], edges[1:]]), ["C", "A:min", "N", "C", "D:min", "E", "N", "G"])
    estimate = Chords(np.column_stack([edges[:-1], edges[1:]]), ["C", "A", "N", "G", "D:min", "E", "C", "A:min"])
    rows = [row(task="chord", details=ChordTask().details([reference], [estimate]))]
    tables = details_tables(rows)
    by_quality = {name: score for name, _, score in named(tables, "majmin by quality").rows}
    confusion = {line[0]: line for line in named(tables, "the estimated one").rows}
    assert by_quality == {"maj": ".500", "min": ".500", "N": ".500"}
    assert [confusion[f"{name} → {name}"][1] for name in ("maj", "min")] == ["50.0", "50.0"]
    assert confusion["N → N"][-1] == "50.0"
    assert confusion["maj → maj"][1 + 7] == "25.0"  # G for C: a fifth above
    assert confusion["maj → min"][1 + 2] == "25.0"  # A minor for G: a tone above


def test_details_are_written_as_markdown_csv_html_latex_and_on_the_terminal(row):
    details = {"confusion": ROTATION, "by|kind": {"a_b": 0.5}, "<b>": 3}
    tables = details_tables([row(task="chord", details=details)])
    text = "\n\n".join(markdown(table, 3) for table in tables)
    for section in text.split("### ")[1:]:
        grid = [re.sub(r"\\\|", "", line) for line in section.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in grid}) == 1
    lines = list(csv.DictReader(io.StringIO(csv_text(tidy_details(tables)))))
    assert {"line": "maj → maj", "column": "0", "value": "75.0"}.items() <= lines[0].items()
    assert len(lines) == 4 * 13 + 2
    page = "".join(map(html_section, tables))
    assert page.count("<table>") == 3
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    source = "".join(map(latex, tables))
    assert all(text in source for text in (r"maj $\to$ maj", r"a\_b", r"\% of each reference", r"\toprule"))
    assert "→" not in source
    out = io.StringIO()
    for table in tables:
        print_table(table, Console(file=out, width=160))
    assert all(text in out.getvalue() for text in ("maj → maj", "75.0", "in all"))


def test_rows_without_details_make_no_table_and_no_figure(tmp_path, row):
    rows = [row(), row("mel", details={}), row("random", details={"scored": []})]
    assert details_tables(rows) == []
    assert details_figures(rows, tmp_path) == []


def test_a_map_of_confusions_names_qualities_distances_and_units(tmp_path, row):
    rows = [
        row(task="chord", details={"confusion": ROTATION}),
        row("mel", task="chord", details={"confusion": ROTATION}),
    ]
    png, svg = confusion_figure(rows, "chord", tmp_path / "map")
    texts = words(svg)
    assert png.read_bytes().startswith(b"\x89PNG")
    assert {"maj", "N", "11", "75", "25", "reference", "time of reference (%)"} <= set(texts)
    assert texts.count("pretrained vit1d_mini, sequence") == 1
    assert not any(text.startswith("mel") for text in texts)
    again = confusion_figure(rows, "chord", tmp_path / "again")[1]
    assert svg.read_text() == again.read_text()


def test_a_map_of_classes_has_references_down_and_estimates_across(tmp_path, row):
    rows = [
        row(task="genre", digest=name, details=matrix(["jazz", "metal"], [[3, 1], [0, 0]])) for name in ("one", "two")
    ]
    texts = words(confusion_figure(rows, "genre", tmp_path / "map")[1])
    assert {"tracks of reference (%)", "estimate", "reference", "75", "25"} <= set(texts)
    assert texts.count("jazz") == 4  # two panels, two axes
    assert "0" in texts  # of the scale alone: a class that never occurs has no shares


def test_bars_are_ranked_with_the_baselines_as_marks(tmp_path, row):
    rows = [row(task="genre", details=classes(0.3, 0.9, None))]
    rows += [row(kind, task="genre", details=classes(0.5, 0.5, 0.5)) for kind in ("random", "mel", "mfcc", "chroma")]
    rows += [row("oracle", 1.0, task="genre", selection=None, details=classes(1.0, 1.0, 1.0))]
    texts = words(class_bars(rows, "genre", tmp_path / "bars")[1])
    assert {"f1 (0–1)", "pretrained vit1d_mini", "random vit1d_mini", "mel", "mfcc", "chroma"} <= set(texts)
    assert "oracle (ceiling)" not in texts
    ticks = [text for text in texts if text.endswith("(5 tracks)")]
    assert ticks == ["b (5 tracks)", "a (5 tracks)"]  # c is undefined


def test_bars_show_the_headline_and_leave_the_middle_of_many_classes_out(tmp_path, row):
    table = {f"t{i:02}": {"positives": 1, "map": i / 100, "roc_auc": 0.5} for i in range(80)}
    texts = words(class_bars([row(task="tagging", details={"by_class": table})], "tagging", tmp_path / "bars")[1])
    assert "map (0–1)" in texts
    assert any("best and worst 30 of 80" in text for text in texts)
    assert {"t79 (1 tracks)", "t00 (1 tracks)"} <= set(texts)
    assert "t40 (1 tracks)" not in texts


def test_figures_of_several_splits_are_drawn_apart(tmp_path, row):
    rows = [
        row(task="genre", split=split, details=classes(0.5) | matrix(["a", "b"], [[1, 0], [0, 1]])) for split in "xy"
    ]
    figures = details_figures(rows, tmp_path)
    names = [path.name for _, paths in figures for path in paths if path.suffix == ".svg"]
    assert names == ["confusion_genre_0.svg", "classes_genre_0.svg", "confusion_genre_1.svg", "classes_genre_1.svg"]
    with pytest.raises(InputError, match="2 datasets or splits"):
        confusion_figure(rows, "genre", tmp_path / "map")
    for draw in (confusion_figure, class_bars):
        with pytest.raises(InputError, match="no row of task beat"):
            draw([row()], "beat", tmp_path / "map")
