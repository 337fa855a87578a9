"""Preparing a corpus: what a copy lacks is reported, and nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import soundfile

from musictf.cli import main
from musictf.datasets.base import Dataset, Track, single_root
from musictf.datasets.prepare import describe, list_corpora, prepare
from musictf.errors import InputError
from musictf.tasks.chord import ChordTask
from musictf.tasks.tagging import TaggingTask

TASKS = [TaggingTask(), ChordTask()]


@dataclass(kw_only=True)
class Hits(Dataset):
    """Four songs.

    Attributes:
        root: Folder with ``song0.wav`` to ``song3.wav``.
    """

    name: ClassVar[str] = "hits"
    citation: ClassVar[str] = "A. Author: Hits. 1999"
    license: ClassVar[str] = "CC0"
    homepage: ClassVar[str] = "https://example.org/hits, file hits.zip"
    published: ClassVar[dict[str, int]] = {"tracks": 4, "train": 2, "test": 3, "tags": 3, "bands": 2}
    known_bad: ClassVar[dict[str, str]] = {"song3": "is noise in every copy"}

    root: Any = None

    def read_tracks(self) -> list[Track]:
        folder = single_root(self.root, self.name)
        splits = ("train", "train", "test", "test")
        return [
            Track(track_id=f"song{i}", audio=folder / f"song{i}.wav", split=split, labels={"tags": ["x"]})
            for i, split in enumerate(splits)
        ]


@pytest.fixture
def copy(tmp_path, white_noise):
    for number in range(4):
        soundfile.write(tmp_path / f"song{number}.wav", white_noise(16_000, number), 16_000)
    return tmp_path


def prepared(root, capsys, full=False):
    """What is printed, and the complaint if there is one."""
    complaint = ""
    try:
        prepare(Hits(root=str(root)), ["dataset=hits", f"dataset.root={root}"], TASKS, full)
    except InputError as error:
        complaint = str(error)
    return capsys.readouterr().out, complaint


def cells(said, name):
    return next(line.split() for line in said.splitlines() if line.strip().startswith(f"{name} "))


def test_a_whole_copy_passes_and_names_the_next_commands(copy, capsys):
    said, complaint = prepared(copy, capsys)
    assert not complaint
    assert f"musictf data check dataset=hits dataset.root={copy} output=hits-exclusions.txt" in said
    assert f"musictf probe backbone=mel task=tagging dataset=hits dataset.root={copy}\n" in said
    assert "task=chord" not in said  # no track has chords


def test_counts_stand_beside_the_published_ones(copy, capsys):
    (copy / "song0.wav").unlink()
    said, _ = prepared(copy, capsys)
    lines = said.splitlines()
    start = next(number for number, line in enumerate(lines) if "published" in line)
    table = {line.split()[0]: line.split()[1:] for line in lines[start + 1 : start + 5]}
    assert table == {
        "tracks": ["4", "4", "3"],
        "train": ["2", "2", "1"],
        "test": ["3", "2", "2", "differs"],
        "tags": ["3", "4", "3"],  # without the one that is known to be bad: agrees
    }
    assert "bands" not in said  # not a count of tracks


def test_a_track_known_to_be_bad_is_no_complaint(copy, capsys):
    (copy / "song3.wav").unlink()
    assert prepared(copy, capsys)[1] == ""


def test_missing_audio_is_told_and_leads_to_exclusions(copy, capsys):
    (copy / "song1.wav").unlink()
    said, complaint = prepared(copy, capsys)
    assert "1 of 3 tracks of this copy cannot be used" in complaint
    assert f"song1: {copy / 'song1.wav'}: does not exist" in said
    assert "dataset.exclusions=hits-exclusions.txt" in said
    assert "can use: train 1 of 2, test 1 of 1" in said


def test_headers_are_read_by_default_and_all_is_decoded_on_request(copy, capsys, white_noise):
    soundfile.write(copy / "song1.wav", white_noise(16_000) * float("nan"), 16_000, subtype="FLOAT")
    assert prepared(copy, capsys)[1] == ""
    assert "1 of 3" in prepared(copy, capsys, full=True)[1]
    (copy / "song2.wav").write_text("<html>404</html>")
    said, complaint = prepared(copy, capsys)
    assert "1 of 3" in complaint
    assert "song2.wav: cannot be decoded" in said


def test_without_a_copy_the_layout_is_shown(tmp_path, capsys):
    said, complaint = prepared(tmp_path / "nowhere", capsys)
    assert "is not a folder" in complaint
    assert "root: Folder with ``song0.wav``" in said
    assert "what a copy lacks is reported" in said  # the module says what it is


def test_it_says_whom_to_cite_and_where_to_go(capsys):
    describe(Hits)
    said = capsys.readouterr().out
    for text in ("A. Author: Hits. 1999", "CC0", "https://example.org/hits", "song3: is noise", "tracks 4"):
        assert text in said


def test_all_corpora_are_listed_with_their_tasks(capsys):
    list_corpora({"hits": Hits}, TASKS)
    line = next(line for line in capsys.readouterr().out.splitlines() if "hits" in line)
    assert line.split()[:4] == ["hits", "4", "tagging", "CC0"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["manifst"], "corpus 'manifst' is unknown, did you mean 'manifest'?"),
        (["manifest"], "needs dataset.root=FOLDER"),
        (["manifest", "nowhere"], "nowhere is not a folder"),
        (["manifest", ".", "full=yes"], "full=yes: true or false"),
        (["manifest", ".", "variant=a"], "unknown key 'dataset.variant'"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["data", "prepare", *arguments])
    assert stop.value.code == 2
    complaint = capsys.readouterr().err.strip().splitlines()
    assert len(complaint) == 1
    assert said in complaint[0]


def test_the_command_checks_a_copy_and_lists_the_corpora(corpus, capsys):
    main(["data", "prepare", "folder", str(corpus)])
    said = capsys.readouterr().out
    assert "corpus: 4 tracks" in said
    assert f"musictf pretrain dataset=folder dataset.root={corpus}" in said
    main(["data", "prepare"])
    assert {"folder", "manifest", "synthetic"} <= {
        line.split()[0] for line in capsys.readouterr().out.splitlines() if line
    }


@pytest.mark.parametrize(("arguments", "said"), [([], "data check or data prepare"), (["chekc"], "data check?")])
def test_an_unknown_act_names_those_there_are(arguments, said, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["data", *arguments])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err
