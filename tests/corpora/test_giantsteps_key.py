from pathlib import Path

import pytest

from musictf.corpora.giantsteps_key import GiantStepsKey
from musictf.datasets.splits import groups_across_splits
from musictf.errors import InputError

FORMATS = Path(__file__).resolve().parents[3] / "shared" / "data" / "formats" / "giantsteps_key"
NAMES = ("10089 Ann, Bob - Song (Original Mix)", "61415 Cid - A - B (Remix)", "74982 Bob - Tune (Original Mix)")


def plus(root, keys=("D major", "Bb minor", "F# minor")):
    (root / "keys_gs+").mkdir(parents=True)
    for name, key in zip(NAMES, keys):
        (root / "keys_gs+" / f"{name}.txt").write_text(key)
    return str(root)


def github(root):
    (root / "annotations/key").mkdir(parents=True)
    (root / "annotations/key/10089.LOFI.key").write_text("Bb major")
    return str(root)


def mtg(root, rows, artists=None):
    (root / "annotations").mkdir(parents=True)
    table = "".join(f"{number}\t{key}\t{certain}\n" for number, key, certain in rows)
    (root / "annotations/annotations.txt").write_text("ID\tMANUAL KEY\tC\n" + table)
    names = "".join(f"{number}\t{(artists or {}).get(number, f'artist {number}')}\tTitle\n" for number, _, _ in rows)
    (root / "annotations/beatport_metadata.txt").write_text("ID\tARTIST\tSONG TITLE\n" + names)
    return str(root)


def test_keys_are_as_given_and_artists_are_the_groups(tmp_path):
    tracks = GiantStepsKey(root=plus(tmp_path)).read_tracks()
    assert [track.annotation("key") for track in tracks] == ["D major", "Bb minor", "F# minor"]
    assert [track.group for track in tracks] == ["ann", "cid", "ann"]  # Bob worked with Ann
    assert tracks[0].audio == tmp_path / "audio" / f"{NAMES[0]}.mp3"
    assert groups_across_splits(tracks) == {}


def test_both_copies_are_read_and_labelled_apart(tmp_path):
    assert GiantStepsKey(root=plus(tmp_path / "plus")).label == "giantsteps+:derived"
    corpus = GiantStepsKey(root=github(tmp_path / "github"))
    assert corpus.label == "giantsteps:derived"
    (track,) = corpus.read_tracks()
    assert track.track_id == "10089.LOFI"
    assert track.audio == tmp_path / "github/audio/10089.LOFI.mp3"
    assert track.annotation("key") == "Bb major"


def test_with_a_training_set_all_of_giantsteps_is_the_test_split(tmp_path):
    rows = [(str(number), "C minor", 2) for number in range(200)]
    corpus = GiantStepsKey(root=plus(tmp_path / "gs"), train_root=mtg(tmp_path / "mtg", rows))
    assert {track.track_id for track in corpus.tracks("test")} == set(NAMES)
    assert len(corpus.tracks("train")) + len(corpus.tracks("valid")) == 200
    assert 20 <= len(corpus.tracks("valid")) <= 60  # 80 to 20 by hash
    assert corpus.tracks("train")[0].audio.parent == tmp_path / "mtg/audio"
    assert corpus.tracks("train")[0].audio.name.endswith(".LOFI.mp3")
    assert corpus.label == "giantsteps+:mtg"


def test_only_one_certain_key_is_trained_on(tmp_path):
    rows = [
        ("1", "D# minor", 2), ("2", "A minor", 1), ("3", "-", 0), ("4", "C minor / F# minor", 2),
        ("5", "F / F# minor", 2), ("6", "G minor/major", 2), ("7", "A-A# minor", 2), ("8", "C# major", 2),
    ]  # fmt: skip
    corpus = GiantStepsKey(root=plus(tmp_path / "gs"), train_root=mtg(tmp_path / "mtg", rows))
    keys = {track.track_id: track.annotation("key") for track in corpus.read_tracks() if track.split != "test"}
    assert keys == {"mtg/1.LOFI": "D# minor", "mtg/8.LOFI": "C# major"}


def test_collaborators_are_never_torn_apart(tmp_path):
    rows = [(str(number), "C minor", 2) for number in range(60)]
    artists = {
        str(number): f"A{number % 20}, A{(number + 1) % 20 if number % 4 else number % 20}" for number in range(60)
    }
    corpus = GiantStepsKey(root=plus(tmp_path / "gs"), train_root=mtg(tmp_path / "mtg", rows, artists))
    splits = {}
    for track in corpus.read_tracks():
        if track.split != "test":
            for artist in artists[track.track_id.split("/")[1].split(".")[0]].split(", "):
                splits.setdefault(artist, set()).add(track.split)
    assert all(len(found) == 1 for found in splits.values())
    assert {split for found in splits.values() for split in found} == {"train", "valid"}


def test_a_track_without_a_single_key_has_none(tmp_path):
    tracks = GiantStepsKey(root=plus(tmp_path, ["X", "d minor | f minor", "c# Minor\t2\tcomment"])).read_tracks()
    assert [track.annotation("key") for track in tracks] == [None, None, "C# minor"]


def test_an_empty_key_file_is_refused(tmp_path):
    tracks = GiantStepsKey(root=plus(tmp_path, ["", "C major", "C major"])).read_tracks()
    with pytest.raises(InputError, match="Mix.*txt: holds no key"):
        tracks[0].annotation("key")


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match=r"neither keys_gs\+.*musictf data prepare giantsteps_key"):
        GiantStepsKey(root=str(tmp_path)).read_tracks()
    root = plus(tmp_path / "gs")
    with pytest.raises(InputError, match="dataset.train_root: .*nowhere is not a folder"):
        GiantStepsKey(root=root, train_root=str(tmp_path / "nowhere")).read_tracks()
    with pytest.raises(InputError, match="annotations.txt does not exist"):
        GiantStepsKey(root=root, train_root=str(tmp_path)).read_tracks()


@pytest.mark.skipif(not FORMATS.is_dir(), reason="no cut-down copy of GiantSteps beside the repository")
def test_the_real_layout_is_read():
    (track,) = GiantStepsKey(root=str(FORMATS)).read_tracks()
    assert track.annotation("key") == "D major"
    assert track.group == "jason sparks"
