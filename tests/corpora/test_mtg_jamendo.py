from pathlib import Path

import pytest

from musictf.corpora.mtg_jamendo import MTGJamendo
from musictf.datasets.splits import groups_across_splits
from musictf.errors import InputError

FORMATS = Path(__file__).resolve().parents[3] / "shared" / "data" / "formats" / "mtg_jamendo"
HEADER = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS\n"
ROWS = {
    "train": "track_0000948\tartist_000087\talbum_000149\t48/948.mp3\t212.7\tgenre---rock\tmood/theme---calm\n"
    "track_0000950\tartist_000087\talbum_000149\t50/950.mp3\t248.0\tgenre---rock\n",
    "validation": "track_0000773\tartist_000104\talbum_000126\t73/773.mp3\t275.3\tgenre---pop\n",
    "test": "track_0000214\tartist_000014\talbum_000031\t14/214.mp3\t124.6\tgenre---punkrock\n",
}


def write(root, subset="top50tags", split=0, rows=ROWS, folders=("audio",)):
    folder = root / "data" / "splits" / f"split-{split}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in rows.items():
        (folder / f"autotagging_{subset}-{name}.tsv").write_text(HEADER + text)
    for name in folders:
        (root / name).mkdir(exist_ok=True)
    return str(root)


def test_ragged_rows_give_every_tag_as_distributed(tmp_path):
    corpus = MTGJamendo(root=write(tmp_path))
    tracks = corpus.read_tracks()
    assert [track.split for track in tracks] == ["train", "train", "valid", "test"]
    assert tracks[0].labels["tags"] == ["genre---rock", "mood/theme---calm"]
    assert tracks[1].labels["tags"] == ["genre---rock"]  # one tag, and still a list
    assert tracks[0].group == tracks[0].labels["artist"] == "artist_000087"
    assert corpus.label == "mtg_jamendo:top50tags-0"


@pytest.mark.parametrize(
    ("folders", "audio", "path"),
    [
        (["audio"], "auto", "audio/48/948.mp3"),
        (["audio-low"], "auto", "audio-low/48/948.low.mp3"),
        (["audio", "audio-low"], "auto", "audio/48/948.mp3"),
        (["audio", "audio-low"], "low", "audio-low/48/948.low.mp3"),
        ([], "auto", "audio/48/948.mp3"),
        ([], "low", "audio-low/48/948.low.mp3"),
    ],
)
def test_audio_is_the_one_that_is_there(tmp_path, folders, audio, path):
    corpus = MTGJamendo(root=write(tmp_path, folders=folders), audio=audio)
    assert corpus.read_tracks()[0].audio == tmp_path / path


def test_subset_and_split_choose_the_file(tmp_path):
    other = {name: text.replace("genre---", "instrument---") for name, text in ROWS.items()}
    write(tmp_path)
    corpus = MTGJamendo(root=write(tmp_path, "instrument", 3, other), subset="instrument", split=3)
    assert corpus.read_tracks()[1].labels["tags"] == ["instrument---rock"]
    assert corpus.label == "mtg_jamendo:instrument-3"


@pytest.mark.parametrize(("key", "value"), [("subset", "all"), ("split", 5), ("split", -1), ("audio", "high")])
def test_a_wrong_key_is_refused(key, value):
    with pytest.raises(InputError, match=f"dataset.{key}={value!r}"):
        MTGJamendo(root="/", **{key: value})


def test_a_missing_split_file_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "data/splits/split-0/autotagging_top50tags-validation.tsv").unlink()
    with pytest.raises(InputError, match="top50tags-validation.tsv does not exist.*musictf data prepare mtg_jamendo"):
        MTGJamendo(root=str(tmp_path)).read_tracks()


@pytest.mark.parametrize(
    ("row", "reason"),
    [("track_1\tartist_1\talbum_1\t1/1.mp3\t1.0\n", ":2: expected 6"), ("a\tb\tc\td\t1\t\n", ":2: expected 6")],
)
def test_a_track_without_tags_is_refused(tmp_path, row, reason):
    with pytest.raises(InputError, match=f"train.tsv{reason}"):
        MTGJamendo(root=write(tmp_path, rows=ROWS | {"train": row})).read_tracks()


def test_a_file_without_its_header_is_refused(tmp_path):
    root = write(tmp_path)
    (tmp_path / "data/splits/split-0/autotagging_top50tags-train.tsv").write_text(ROWS["train"])
    with pytest.raises(InputError, match="train.tsv:1: expected the columns TRACK_ID"):
        MTGJamendo(root=root).read_tracks()


@pytest.mark.skipif(not FORMATS.is_dir(), reason="no cut-down copy of MTG-Jamendo beside the repository")
@pytest.mark.parametrize("subset", ["top50tags", "genre", "instrument", "moodtheme"])
def test_the_real_layout_is_read(subset):
    corpus = MTGJamendo(root=str(FORMATS), subset=subset)
    tracks = corpus.read_tracks()
    assert [len(corpus.tracks(split)) for split in ("train", "valid", "test")] == [24, 24, 24]
    assert all(track.labels["tags"] for track in tracks)
    assert groups_across_splits(tracks) == {}
    if subset == "moodtheme":
        there = [track.track_id for track in tracks if track.audio.is_file()]
        low = MTGJamendo(root=str(FORMATS), subset=subset, audio="low").read_tracks()
        assert there == [track.track_id for track in low if track.audio.is_file()] != []
