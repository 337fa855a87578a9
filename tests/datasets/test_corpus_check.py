"""The check: what is bad is found and named, what is odd is remarked, and the list it writes makes a corpus usable."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictf.cli import main
from musictf.datasets.base import AnnotationFile, Dataset, Track, read_exclusions
from musictf.datasets.corpus_check import check, remarks, usable_line, write_exclusions
from musictf.datasets.manifest import READERS, Manifest
from musictf.datasets.track_checks import audit, decoded
from musictf.errors import InputError
from musictf.tasks.chord import ChordTask

RATE = 16_000


@dataclass(kw_only=True)
class Listed(Dataset):
    """Tracks as given."""

    name = "listed"
    every: tuple[Track, ...] = ()

    def read_tracks(self):
        return list(self.every)


@pytest.fixture
def sound(tmp_path, white_noise):
    def write(name, seconds=2.0, seed=0, level=0.1, rate=RATE, channels=1, **how):
        waveform = white_noise(round(seconds * rate) * channels, seed, level).reshape(-1, channels)
        soundfile.write(tmp_path / name, waveform, rate, **how)
        return tmp_path / name

    return write


def track(path, split="train", **what):
    labels = what.pop("labels", {"tags": ["noise"]})
    return Track(track_id=what.pop("name", path.stem), audio=path, split=split, labels=labels, **what)


def chords(path, text):
    path.write_text(text)
    return {"chords": AnnotationFile(path, READERS["chords"])}


def faults(*tracks):
    return {finding.track.track_id: finding.faults for finding in audit(tracks)}


def test_a_whole_corpus_passes_and_is_summed_up(sound, capsys):
    tracks = [track(sound("a.wav", 2)), track(sound("b.flac", 4, seed=1, channels=2, rate=44_100), "test")]
    check(Listed(every=tuple(tracks)))
    said = capsys.readouterr().out
    assert "listed: 2 tracks, 0.00 hours" in said
    assert "2.0 to 4.0 s, median 3.0 s" in said
    assert "16000 Hz, mono: 1; 44100 Hz, stereo: 1" in said
    assert "tags: train 1 of 1, test 1 of 1" in said
    assert "bad otherwise (" not in said


def test_a_level_is_that_of_the_samples(sound, tmp_path):
    time = np.arange(RATE) / RATE
    soundfile.write(tmp_path / "sine.wav", np.sin(2 * np.pi * 100 * time), RATE, subtype="DOUBLE")
    assert decoded(tmp_path / "sine.wav").level == pytest.approx(-10 * np.log10(2), abs=1e-3)  # of a full-scale sine
    assert decoded(sound("stereo.wav", 4, level=0.1, channels=2)).level == pytest.approx(-20, abs=0.2)


def test_what_cannot_be_decoded_is_bad(sound, tmp_path):
    cut = sound("cut.flac", 30)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (tmp_path / "empty.mp3").touch()
    (tmp_path / "text.wav").write_text("not audio")
    soundfile.write(tmp_path / "nan.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    names = ("cut.flac", "empty.mp3", "text.wav", "nan.wav", "gone.wav")
    found = faults(track(sound("fine.wav")), *(track(tmp_path / name) for name in names))
    assert found.pop("fine") == ()
    said = {name: reasons[0] for name, reasons in found.items()}
    assert set(said) == {"cut", "empty", "text", "nan", "gone"}
    assert "empty file" in said["empty"]
    assert "NaN" in said["nan"]
    assert said["gone"] == f"{tmp_path / 'gone.wav'}: does not exist"
    assert all(str(tmp_path) in reason and "\n" not in reason for reason in said.values())


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return track(path)


def test_a_file_that_breaks_off_is_never_passed_over(sound):
    """Decoders differ: flac complains, mp3 states frames that it does not have, the others end early without a word."""
    tracks = [cut_in_half(sound(f"a.{kind}", 20)) for kind in ("flac", "mp3", "wav", "aiff", "ogg")]
    tracks += [
        track(sound(f"whole.{kind}", 20, seed=1), name=f"whole.{kind}") for kind in ("mp3", "wav", "ogg", "aiff")
    ]
    tracks = [Track(track_id=each.audio.name, audio=each.audio, labels=each.labels) for each in tracks]
    findings = audit(tracks)
    bad = {finding.track.track_id: finding.faults[0] for finding in findings if finding.faults}
    assert set(bad) == {"a.flac", "a.mp3"}
    assert "breaks off after" in bad["a.mp3"]
    assert "of 20.0 s" in bad["a.mp3"]
    for each in (findings, audit(tracks[2:], whole=False)):
        cut = remarks(each)["ends before the end that its header states"]
        assert {line.split(":")[0] for line in cut} == {"a.wav", "a.aiff", "a.ogg"}


def test_a_fault_deep_in_a_file_is_heard(sound, tmp_path):
    """A header alone, or the first block, would pass it."""
    waveform = np.zeros(3 * (1 << 20), dtype=np.float32)
    waveform[-5] = np.inf
    soundfile.write(tmp_path / "late.wav", waveform, RATE, subtype="FLOAT")
    assert "infinite" in faults(track(tmp_path / "late.wav"))["late"][0]
    assert not audit([track(tmp_path / "late.wav")], whole=False)[0].faults


def test_versions_and_annotations_count_as_well(sound, tmp_path):
    good = sound("good.wav")
    with_version = track(good, name="version", versions=(tmp_path / "gone.wav",))
    with_chords = track(good, name="chords", labels=chords(tmp_path / "x.lab", "0 1 H:dur\n"))
    found = faults(with_version, with_chords)
    assert "gone.wav: does not exist" in found["version"][0]
    assert audit([with_version])[0].is_missing
    assert "x.lab:1" in found["chords"][0]


def test_every_fault_of_a_track_is_told(tmp_path):
    both = track(tmp_path / "gone.wav", labels=chords(tmp_path / "x.lab", "0 1 H:dur\n"))
    assert len(faults(both)["gone"]) == 2


def test_the_same_recording_twice_is_listed(sound, tmp_path):
    one = sound("one.wav", subtype="PCM_16")
    shutil.copy(one, tmp_path / "copy.wav")
    waveform, _ = soundfile.read(one, dtype="int16")
    soundfile.write(tmp_path / "other.flac", waveform, RATE, subtype="PCM_16")
    soundfile.write(tmp_path / "faster.wav", waveform, 2 * RATE, subtype="PCM_16")
    names = ("one.wav", "copy.wav", "faster.wav")
    lines = remarks(audit([track(tmp_path / name) for name in names]))["same audio"]
    assert lines == ["one (train) = copy (train): same file"]
    torn = [track(one), track(tmp_path / "other.flac", "test"), track(sound("else.wav", seed=1))]
    assert remarks(audit(torn))["same audio"] == ["one (train) = other (test): other container, in several splits"]


def test_oddities_are_remarked_and_not_bad(sound, capsys):
    tracks = (
        track(sound("silent.wav", level=1e-5, subtype="FLOAT"), group="album"),
        track(sound("short.wav", 0.5, seed=1), "test", group="album", labels={"artist": "Ann", "tags": ["x"]}),
        track(sound("bare.wav", seed=2), "valid", group="other", labels={"artist": "Ann"}),
    )
    found = remarks(audit(tracks))
    assert found["near silence"] == ["silent: -100 dB"]
    assert found["very short"] == ["short: 0.50 s"]
    assert found["group in several splits"] == ["album: train 1, test 1"]
    assert found["artist in several splits"] == ["Ann: valid, test"]
    as_group = [track(each.audio, each.split, group="Ann", labels={"artist": "Ann"}) for each in tracks]
    assert remarks(audit(as_group))["artist in several splits"] == []  # told once
    assert found["no annotation"] == ["bare"]
    check(Listed(every=tracks))
    assert "group in several splits (1):" in capsys.readouterr().out


def test_a_corpus_without_any_labels_is_no_remark(sound):
    assert remarks(audit([track(sound("a.wav"), labels={})]))["no annotation"] == []


def test_what_a_task_can_use_is_counted_by_split(sound, tmp_path):
    good = sound("good.wav")
    tracks = [
        track(good, name="a", labels=chords(tmp_path / "a.lab", "0 1 C:maj\n")),
        track(good, name="b", labels=chords(tmp_path / "b.lab", "0 1 H:dur\n")),
        track(good, "test", name="c"),
        track(tmp_path / "gone.wav", "test", labels=chords(tmp_path / "d.lab", "0 1 C:maj\n")),
    ]
    line = usable_line(audit(tracks), ChordTask())
    assert line == "task=chord (needs chords) can use: train 1 of 2, test 0 of 2"


def test_findings_keep_the_order_of_the_tracks(sound):
    paths = [sound(f"{number}.wav", seconds, seed=number) for number, seconds in enumerate((60, 1, 1, 1))]
    assert [f.track.track_id for f in audit([track(path) for path in paths])] == ["0", "1", "2", "3"]


def test_many_lines_of_a_kind_are_counted_in_full(tmp_path, capsys):
    tracks = tuple(track(tmp_path / f"gone{number}.wav") for number in range(50))
    with pytest.raises(InputError, match="50 of 50 tracks"):
        check(Listed(every=tracks))
    said = capsys.readouterr().out
    assert "audio missing (50):" in said
    assert "... and 30 more" in said
    assert "bad otherwise (" not in said
    check(Listed(every=tracks), output=str(tmp_path / "bad.txt"))
    assert len(read_exclusions(str(tmp_path / "bad.txt"))) == 50


def corpus_with_a_bad_file(folder, sound):
    lines = []
    for number, split in enumerate(("train", "train", "valid", "test")):
        sound(f"{number}.wav", seed=number)
        lines.append({"track_id": f"t{number}", "audio": f"{number}.wav", "split": split, "tags": ["x"]})
    (folder / "1.wav").write_bytes(b"RIFF")
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_the_written_list_makes_the_corpus_pass(tmp_path, sound, capsys):
    root = corpus_with_a_bad_file(tmp_path, sound)
    out = str(tmp_path / "lists" / "bad.txt")
    check(Manifest(root=str(root)), output=out)
    assert f"dataset.exclusions={out}" in capsys.readouterr().out
    assert read_exclusions(out).keys() == {"t1"}
    mended = Manifest(root=str(root), exclusions=out)
    assert [t.track_id for t in mended.all_tracks()] == ["t0", "t2", "t3"]
    check(mended)


def test_a_new_list_keeps_what_was_left_out_before(tmp_path, sound):
    root = corpus_with_a_bad_file(tmp_path, sound)
    (tmp_path / "mine.txt").write_text("t3\twrong music\n")
    check(Manifest(root=str(root), exclusions=str(tmp_path / "mine.txt")), output=str(tmp_path / "all.txt"))
    found = read_exclusions(str(tmp_path / "all.txt"))
    assert found["t3"] == "wrong music"
    assert found.keys() == {"t1", "t3"}


def test_an_id_that_a_list_cannot_hold_is_told(tmp_path):
    """A list that reads back as something else would leave the track in, silently."""
    write_exclusions(tmp_path / "bad.txt", None, audit([track(tmp_path / "gone.wav", name="#1")]))
    assert set(read_exclusions(str(tmp_path / "bad.txt"))) == {"#1"}
    with pytest.raises(InputError, match=r"'a\\tb' cannot be written to an exclusion list"):
        write_exclusions(tmp_path / "bad.txt", None, audit([track(tmp_path / "gone.wav", name="a\tb")]))


@pytest.mark.parametrize(
    ("more", "status", "said"),
    [
        ([], 2, "1 of 4 tracks cannot be used"),
        (["output=bad.txt"], 0, "dataset.exclusions=bad.txt"),
        (["output=bad.txt", "task=tagging"], 0, "task=tagging (needs tags) can use: train 1 of 2"),
        (["output=."], 2, "is a folder"),
        (["output=1.wav/bad.txt"], 2, "cannot be written"),
        (["task=taging"], 2, "task=taging is not a choice"),
        (["outptu=bad.txt"], 2, "unknown key 'outptu'"),
    ],
)
def test_exit_status(tmp_path, sound, monkeypatch, capsys, more, status, said):
    monkeypatch.chdir(corpus_with_a_bad_file(tmp_path, sound))
    arguments = ["data", "check", "dataset=manifest", f"dataset.root={tmp_path}", *more]
    if status:
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == status
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert last.startswith("musictf data: ")
    else:
        main(arguments)
        last = capsys.readouterr().out
    assert said in last


@pytest.mark.parametrize("name", ["pop909_rendered", "recorded_bands"])
def test_real_music_passes(name, capsys):
    root = Path(__file__).parents[3] / "shared" / "data" / name
    if not root.is_dir():
        pytest.skip(f"no real music at {root.name}: ../shared/data is not there")
    tracks = Manifest(root=str(root)).all_tracks()[:20]
    assert all(not finding.faults for finding in audit(tracks))
