"""What an inspection says in words and on pages: the rows' own numbers, and every baseline that wins."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from result_rows import inspection_row

from musictf.annotations import Beats, Chords
from musictf.datasets.base import Track
from musictf.errors import InputError
from musictf.reporting import inspection
from musictf.reporting.inspection import inspection_pages, inspection_pictures, inspection_text
from musictf.reporting.inspection_reader import Inspection, read_arrays


def head(curve, auc, kind="pretrained", seed=0, **more):
    scores = {"auc": auc, "auc_above_shifted": auc - 0.5, "auc_above_shuffled": auc - 0.49}
    scores |= {"f_measure": 0.4, "f_measure_above_shifted": more.pop("above", 0.1)}
    details = {"heads": 8, "median_auc_of_heads": 0.511, "events": 40, "merged": 3}
    if kind == "pretrained":
        details |= {"p_corrected": 0.0127, "heads_that_follow": 5}
    if kind == "flux":
        details["heads"] = 1
    row = {"head": 1, "details": details, "selection": {"split": "valid", "metric": "auc", "value": auc}}
    return inspection_row("attention_beat", curve, 0 if kind == "flux" else 2, scores, kind, seed, **row | more)


def attention(flux=0.61, random=(0.52, 0.54)):
    rows = [head("received", 0.6), head("change", 0.7, above=0.3)]
    rows += [
        head(curve, value, "random", seed) for seed, value in enumerate(random) for curve in ("received", "change")
    ]
    return [*rows, head("received", 0.5, "silence"), head("change", 0.5, "silence"), head("flux", flux, "flux")]


def profile(value, dimension="harmony", kind="pretrained", layer=1, seed=0, **more):
    scores = {"rank_correlation_above_shifted": value, "cka_above_shifted": value / 2}
    return inspection_row("ssm_profile", dimension, layer, scores, kind, seed, **more)


def write(folder, rows):
    folder.mkdir(exist_ok=True)
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def table_row(text, *starts):
    """Cells of the only line of a table that begins so."""
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    (only,) = [cells for cells in found if cells[: len(starts)] == list(starts)]
    return only


def test_attention_shows_the_numbers_of_the_rows(tmp_path):
    text = inspection_text(write(tmp_path / "run", attention()))
    own = table_row(text, "backbone", "received")
    assert own[2:5] == ["2.1", ".600 [.580 .620]", "+.100"]
    assert own[-4:] == ["+.100 [+.080 +.120]", ".511", ".013", "5 of 8"]
    assert "3 of 40 events are merged" in text


def test_random_weights_are_one_line_with_the_mean_of_their_seeds(tmp_path):
    text = inspection_text(write(tmp_path / "run", attention(random=(0.52, 0.56))))
    line = table_row(text, "random (mean of 2 seeds)", "received")
    assert line[2] == "2.1, 2.1"
    assert line[3].startswith(".540")
    assert line[-2:] == ["–", "–"]  # heads of baselines are not tested for following


def test_a_baseline_that_wins_is_named_for_the_curve_it_wins_in(tmp_path):
    text = inspection_text(write(tmp_path / "run", attention(flux=0.65)))
    winners = re.search(r"\*\*A baseline wins or ties\*\* in AUC, (.*?)\. ", text)[1]
    assert "received .600 (flux .650)" in winners
    assert "change" not in winners
    assert "random" not in winners


def test_a_baseline_that_ties_is_named_too(tmp_path):
    text = inspection_text(write(tmp_path / "run", attention(flux=0.6)))
    assert "received .600 (flux .600)" in text


def test_where_no_baseline_wins_all_that_lost_are_named(tmp_path):
    rows = attention(flux=0.55)
    for row in rows[2:]:
        row["scores"]["f_measure_above_shifted"]["mean"] = 0.0
    text = inspection_text(write(tmp_path / "run", rows))
    assert "wins" not in text
    assert "The mean of no baseline reaches the backbone's in AUC (random, silence, flux)" in text


def test_without_controls_no_value_is_called_a_win(tmp_path):
    text = inspection_text(write(tmp_path / "run", attention()[:2]))
    assert "No control was run" in text
    assert "No baseline reaches" not in text


def test_the_profile_has_layers_differences_to_random_and_the_chosen_layer(tmp_path):
    rows = [profile(0.3, layer=0, selected=False), profile(0.4, layer=1)]
    rows += [profile(0.25, kind="random", layer=0, seed=s) for s in (0, 1)]
    rows += [profile(0.5, kind="random", layer=1, seed=s, selected=False) for s in (0, 1)]
    text = inspection_text(write(tmp_path / "run", [*rows, profile(0.45, kind="mel", layer=0)]))
    first, second = text.split("linear centred kernel alignment")
    assert table_row(first, "layer 0")[1] == ".300 (+.050)"
    assert table_row(first, "layer 1")[1] == "**.400** (-.100)"
    assert table_row(first, "random (mean of 2 seeds)")[1] == ".250"  # of its own chosen layer
    assert "harmony .400 (mel .450)" in first
    assert table_row(second, "layer 1")[1] == "**.200** (-.050)"


def test_what_a_dimension_is_made_of_is_no_rival(tmp_path):
    rows = [profile(0.3), profile(0.9, kind="chroma", layer=0), profile(0.1, kind="mfcc", layer=0)]
    text = inspection_text(write(tmp_path / "run", rows))
    assert table_row(text.split("CKA")[0], "chroma")[1] == "itself"
    assert "wins" not in text


def test_nothing_is_ever_minus_nothing(tmp_path):
    rows = [profile(-0.0002), profile(-0.0001, kind="random")]
    assert "-.000" not in inspection_text(write(tmp_path / "run", rows))


def test_stimuli_of_one_curve_are_kept_apart_and_undefined_shares_are_dashes(tmp_path):
    shares = {"position_share": None, "excerpt_share": None, "content_share": None}
    rows = [inspection_row("position", "silence", 0, shares, dataset="stimulus:silence")]
    for sound, value in (("clicks", 0.55), ("scale", 0.75)):
        scores = {"median_auc_of_heads": value, "highest_auc_of_heads": value + 0.1}
        rows.append(inspection_row("stimulus_onset", "received", 3, scores, dataset=f"stimulus:{sound}", head=2))
    text = inspection_text(write(tmp_path / "run", rows))
    assert table_row(text, "layer 0")[1] == "–"
    assert table_row(text, "clicks", "backbone", "received")[3:5] == ["3.2", ".550 [.530 .570]"]
    assert table_row(text, "scale", "backbone", "received")[5] == ".850 [.830 .870]"


def test_token_maps_show_chance_and_the_best_baseline(tmp_path):
    details = {"classes": 12, "tokens": 99, "chance": 1 / 12}
    scores = {"fifths": 0.5, "chromatic": -0.1, "fifths_chance_high": 0.22, "lda_accuracy": 0.4}
    rows = [
        inspection_row("token_map", "chord_root", layer, scores, details=details, selected=False) for layer in (0, 1)
    ]
    rows.append(inspection_row("token_map", "chord_root", 0, scores | {"lda_accuracy": 0.6}, "mel", details=details))
    rows.append(inspection_row("token_map", "beat_phase", 0, {"lda_accuracy": 0.3}, details=details | {"chance": 0.25}))
    text = inspection_text(write(tmp_path / "run", rows))
    assert table_row(text, "backbone", "1")[2:5] == [".500 [.480 .520]", "-.100 [-.120 -.080]", ".220"]
    assert "in LDA accuracy, where the backbone has .400 (mel .600)" in text
    assert "99 tokens in 12 classes; guessing has .083" in text
    phase = text.split("### Beat phase")[1]
    assert "fifths" not in phase
    assert table_row(phase, "backbone", "0")[2] == ".300 [.280 .320]"


def test_boundaries_show_the_layer_that_validation_chose(tmp_path):
    def edge(layer, value, kind="pretrained", **more):
        scores = {"f_measure": value, "precision": 0.2, "recall": 0.3, "f_measure_above_shifted": value - 0.4}
        return inspection_row("boundary", "section", layer, scores, kind, **more)

    rows = [edge(0, 0.9, selected=False), edge(2, 0.5), edge(0, 0.6, "mfcc")]
    text = inspection_text(write(tmp_path / "run", rows))
    assert table_row(text, "backbone")[1:3] == ["2", ".500 [.480 .520]"]
    assert "in F above chance, where the backbone has .100 (mfcc .200)" in text


def test_requested_random_weights_are_the_backbone_and_other_seeds_its_baseline(tmp_path):
    rows = [profile(0.4, kind="random", seed=3), profile(0.1, kind="random", seed=4)]
    text = inspection_text(write(tmp_path / "run", rows))
    assert text.startswith("# Inspection of random vit1d_mini (seed 3) on pop909\n")
    assert table_row(text.split("CKA")[0], "random")[1] == ".100"


def test_parts_that_were_not_inspected_have_no_heading(tmp_path):
    text = inspection_text(write(tmp_path / "run", [profile(0.4)]))
    assert re.findall("^## (.*)", text, re.MULTILINE) == ["Self-similarity of layers and musical dimensions"]


def test_every_picture_of_a_run_of_one_part(tmp_path):
    folder = write(tmp_path / "run", [profile(0.4)])
    found = inspection_pictures(folder)
    assert [path.name for path in found] == ["profile.png", "profile_cka.png"]
    assert all(path.is_file() and path.with_suffix(".svg").is_file() for path in found)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no results.jsonl"), ("{\n", "results.jsonl:1"), ("", "no rows")]
)
def test_a_folder_without_whole_rows_is_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "results.jsonl").write_text(content)
    for use in (inspection_text, inspection_pictures):
        with pytest.raises(InputError, match=message) as caught:
            use(tmp_path)
        assert len(str(caught.value).splitlines()) == 1


def test_runs_that_lie_below_are_left_alone(tmp_path):
    folder = write(tmp_path / "run", [profile(0.4)])
    write(folder / "another", [profile(0.9), profile(0.8, "timbre")])
    assert "timbre" not in inspection_text(folder)


def test_rows_of_another_verb_are_refused(tmp_path):
    with pytest.raises(InputError, match="musictf inspect"):
        inspection_text(write(tmp_path / "run", [inspection_row("chord", "sequence", 1, {"majmin": 0.4})]))


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 broken"])
def test_arrays_that_cannot_be_read_are_one_line(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npz: cannot be read as arrays") as caught:
        read_arrays(tmp_path / "a.npz")
    assert len(str(caught.value).splitlines()) == 1


def test_a_picture_names_the_file_that_lacks_something(tmp_path):
    folder = write(tmp_path / "run", attention())
    (folder / "tracks").mkdir()
    np.savez(folder / "tracks" / "song.npz", **{"curve/beat/change.l2.h1": np.zeros(9), "times": np.arange(9.0)})
    for row in (rows := attention()):
        row["details"].setdefault("p_corrected", 1.0)
    write(folder, [*rows, head("received.h0", 0.5, selected=False)])
    with pytest.raises(InputError, match=r"song\.npz: .*log_mel, mel_hz, flux"):
        inspection_pictures(folder)


def the_track(folder, seconds=3.0, **labels):
    path = folder / "song.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(round(seconds * 16_000)), 16_000)
    return Track(track_id="song", audio=path, split="test", labels=labels)


def arrays_of(seconds=3.0, bins=12, **more):
    times = np.arange(round(seconds * 30)) / 30
    similarity = np.eye(bins)
    bar = np.full((bins, bins), np.nan)
    bar[2:, 2:] = 0.5
    found = {"times": times, "log_mel": np.zeros((len(times), 8)), "mel_hz": np.linspace(100, 7000, 8)}
    found |= {"flux": times, "curve/beat/class_row.l2.h1": 2 * times, "bin_times": np.arange(bins) / 4 + 0.1}
    found |= {"ssm/0": similarity, "dimension/bar": bar, "dimension/loudness": -40.0 * (1 - similarity)}
    return found | more


def page_of(tmp_path, track, arrays, probes=()):
    folder = write(tmp_path / "run", [profile(0.4)])
    (folder / "tracks").mkdir()
    np.savez(folder / "tracks" / f"{track.track_id}.npz", **arrays)
    (page,) = inspection_pages(folder, [track, Track(track_id="unseen", audio=track.audio)], probes)
    assert page == folder / "listen" / f"{track.track_id}.html"
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="\w+">(.*?)</script>', text, re.DOTALL)[1])


def test_a_page_has_lanes_curves_and_matrices_of_its_track(tmp_path):
    chords = Chords(np.array([[0.0, 1.0], [1.0, 3.0]]), ["C:maj", "G:maj"])
    track = the_track(tmp_path, chords=chords, beats=Beats(np.array([0.5, 1.0])), onsets=np.array([0.25]))
    events = {"event/beat": np.array([0.5]), "event/chord_change": np.array([1.0]), "event/onset": np.array([0.25])}
    page = page_of(tmp_path, track, arrays_of(**events))
    lanes = {lane["name"]: lane for lane in page["lanes"]}
    assert lanes["onsets"]["times"] == [0.25]
    assert lanes["chord changes"]["times"] == [1.0]
    assert [n for n, lane in lanes.items() if lane["kind"] in {"chords", "beats"}] == ["chords", "beats"]
    assert lanes["class row, layer 2 head 1 (beat)"]["high"] == pytest.approx(2 * 89 / 30)
    assert "spectral flux (dB a frame)" in lanes
    assert page["matrices"][0]["name"] == "layer 0"


def test_bins_in_which_a_dimension_is_unknown_are_left_out_and_counted(tmp_path):
    matrices = {matrix["name"]: matrix for matrix in page_of(tmp_path, the_track(tmp_path), arrays_of())["matrices"]}
    bar = matrices["bar (2 of 12 bins unknown, left out)"]
    assert bar["start"] == pytest.approx(2 / 4 + 0.1 - 0.125)  # begins with the first known bin
    assert "loudness, minus the difference over the largest, 40.0 dB" in matrices  # no cosine: scaled


def test_the_page_gets_the_spectrogram_of_the_file(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(inspection, "listening_page", lambda page, out: given.append(page) or out)
    log_mel = np.random.default_rng(0).uniform(-60, 0, (90, 8))
    folder = write(tmp_path / "run", [profile(0.4)])
    (folder / "tracks").mkdir()
    np.savez(folder / "tracks" / "song.npz", **arrays_of(log_mel=log_mel))
    inspection_pages(folder, [the_track(tmp_path)])
    assert given[0].log_mel == pytest.approx(log_mel.T)
    assert len(given[0].waveform) == 3 * given[0].sample_rate


def test_a_track_without_annotations_has_a_page_all_the_same(tmp_path):
    lanes = page_of(tmp_path, the_track(tmp_path), arrays_of())["lanes"]
    assert {lane["kind"] for lane in lanes} == {"ruler", "waveform", "spectrogram", "curve"}


def test_a_page_of_a_file_without_spectrogram_is_refused(tmp_path):
    arrays = {name: values for name, values in arrays_of().items() if name != "log_mel"}
    with pytest.raises(InputError, match=r"song\.npz: holds no log_mel"):
        page_of(tmp_path, the_track(tmp_path), arrays)


def test_systems_are_identified_by_kind_and_seed():
    rows = [profile(0.4), profile(0.1, kind="random", seed=0), head("flux", 0.6, "flux")]
    found = Inspection(rows)
    assert [found.system(row) for row in rows] == ["backbone", "random", "flux"]
    assert found.systems("ssm_profile") == ["backbone", "random"]


def test_tables_and_figures_need_no_torch_modules_of_their_own():
    script = (
        "import sys; import musictf.reporting.inspection; "
        "assert not {'torch', 'musictf.audio.io'} & set(sys.modules), 'imports torch'"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_head_that_several_targets_chose_has_one_lane(tmp_path):
    arrays = arrays_of()
    name = next(name for name in arrays if name.startswith("curve/"))
    arrays["curve/downbeat/" + name.rpartition("/")[2]] = arrays[name]
    lanes = [lane["name"] for lane in page_of(tmp_path, the_track(tmp_path), arrays)["lanes"]]
    assert sum("layer 2 head 1" in lane and "downbeat" in lane for lane in lanes) == 1


def test_a_page_shows_what_probe_runs_made_of_the_track(tmp_path, monkeypatch):
    (tmp_path / "a.lab").write_text("0 1.5 A:min\n1.5 3 N\n")
    files = {"chord": {"viterbi": tmp_path / "a.lab"}, "beat": {}}
    asked = []

    def estimate_files(folders, task, name):
        asked.append((list(folders), task, name))
        return files[task]

    monkeypatch.setattr("musictf.reporting.run_figures.estimate_files", estimate_files)
    track = the_track(tmp_path, chords=Chords(np.array([[0.0, 3.0]]), ["C:maj"]))
    page = page_of(tmp_path, track, arrays_of(), [tmp_path / "probe"])
    assert [lane["name"] for lane in page["lanes"] if lane["kind"] == "chords"] == ["chords", "estimated, viterbi"]
    assert asked[0] == ([tmp_path / "probe"], "chord", f"{track.track_id}.lab")
