"""The mirdata adapter: what mirdata says becomes our labels, with a stand-in for mirdata and with mirdata itself."""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import mir_eval
import numpy as np
import pytest
from omegaconf import OmegaConf

from musictf.corpora import mirdata as adapter
from musictf.corpora.mirdata import Mirdata
from musictf.datasets.base import derived_split, split_digest
from musictf.errors import InputError

REAL = Path(__file__).parents[3] / "shared" / "data" / "formats"


@pytest.fixture(autouse=True)
def forgotten():
    adapter._corpus.cache_clear()
    yield
    adapter._corpus.cache_clear()


def beat_data(times, positions, unit="bar_index", time_unit="s"):
    return SimpleNamespace(times=np.array(times), positions=positions, position_unit=unit, time_unit=time_unit)


def chord_data(intervals, labels):
    return SimpleNamespace(intervals=np.array(intervals, dtype=float), labels=labels)


def key_data(intervals, keys):
    return SimpleNamespace(intervals=np.array(intervals, dtype=float), keys=keys, interval_unit="s")


@dataclass
class FakeTrack:
    """A track of mirdata: paths are attributes, annotations are properties of the class, read when asked for."""

    track_id: str
    audio_path: str | None
    beats_path: str | None
    contents: dict

    chords_path = keys_path = property(lambda self: self.beats_path)
    beats = property(lambda self: self.contents.get("beats"))
    chords = property(lambda self: self.contents.get("chords"))
    key = property(lambda self: self.contents.get("key"))

    def __getattr__(self, name):
        value = self.__dict__.get("contents", {}).get(name)
        if value is None:
            raise AttributeError(name)
        if isinstance(value, Exception):
            raise value
        return value


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Put a mirdata with one corpus in place: {track_id: contents}."""
    (tmp_path / "beats.txt").write_text("anything")

    def install(**tracks):
        def track(track_id):
            contents = tracks[track_id]
            audio = contents.get("audio", str(tmp_path / f"{track_id}.wav"))
            return FakeTrack(track_id, audio, contents.get("file", str(tmp_path / "beats.txt")), contents)

        module = ModuleType("mirdata")
        module.list_datasets = lambda: ["beatles", "orchset"]
        module.initialize = lambda name, data_home, version: SimpleNamespace(track_ids=list(tracks), track=track)
        monkeypatch.setitem(sys.modules, "mirdata", module)
        return Mirdata(name="beatles", root=str(tmp_path))

    return install


def test_annotations_are_converted(fake, tmp_path):
    contents = {
        "beats": beat_data([0.5, 1.0, 1.5], np.array([2, 3, 1])),
        "chords": chord_data([[0, 1.2], [1, 2], [3, 4]], ["N", "C:maj", "G:7"]),
        "key": key_data([[0, 3], [3, 5]], ["E", "A:minor"]),
        "tempo": "120.5",
        "genre": "rock",
        "instrument": "piano",
        "artist": "Ann",
        "tags": ["slow", "sad"],
    }
    (track,) = fake(a=contents).all_tracks()
    assert (track.track_id, track.audio, track.group) == ("a", tmp_path / "a.wav", "Ann")
    np.testing.assert_array_equal(track.annotation("beats").times, [0.5, 1.0, 1.5])
    np.testing.assert_array_equal(track.annotation("beats").downbeats, [1.5])
    chords = track.annotation("chords")
    np.testing.assert_array_equal(chords.intervals, [[0, 1], [1, 2], [2, 3], [3, 4]])
    assert chords.labels == ["N", "C:maj", "X", "G:7"]
    scores = mir_eval.chord.evaluate(chords.intervals, chords.labels, chords.intervals, chords.labels)
    assert (scores["majmin"], scores["seg"]) == (1.0, 1.0)
    values = {name: track.annotation(name) for name in ("key", "tempo", "genre", "instrument", "artist", "tags")}
    assert values == {"key": "E major", "tempo": 120.5, "genre": "rock", "instrument": "piano", "artist": "Ann"} | {
        "tags": ["slow", "sad"]
    }


@pytest.mark.parametrize(
    ("positions", "unit", "expected"),
    [
        (np.array([1.0, 2.0]), "bar_index", [1, 2]),
        (np.array([0, 1]), "bar_index", None),  # 0 lies outside of any bar
        (np.array([1, 2]), "global_index", None),
        (np.array([0.25, 0.5]), "bar_fraction", None),
        (None, None, None),
    ],
)
def test_positions_are_kept_where_they_count_beats_in_the_bar(fake, positions, unit, expected):
    (track,) = fake(a={"beats": beat_data([1.0, 2.0], positions, unit)}).all_tracks()
    found = track.annotation("beats").positions
    assert (None if found is None else found.tolist()) == expected


def test_times_become_seconds_or_are_refused(fake):
    tracks = fake(
        a={"beats": beat_data([1000.0, 2000.0], None, None, "ms")}, b={"beats": beat_data([1.0], None, None, "ticks")}
    ).all_tracks()
    np.testing.assert_array_equal(tracks[0].annotation("beats").times, [1.0, 2.0])
    with pytest.raises(InputError, match="track b.*times are in 'ticks'"):
        tracks[1].annotation("beats")


@pytest.mark.parametrize(("key", "name"), [("D major", "D major"), (["Bb minor"], "Bb minor"), (["C", "G"], None)])
def test_keys_of_whole_tracks_are_read(fake, key, name):
    (track,) = fake(a={"key": key}).all_tracks()
    assert track.annotation("key") == name


def test_a_label_that_is_no_chord_is_refused_with_its_place(fake):
    (track,) = fake(a={"chords": chord_data([[0, 1], [1, 2]], ["C", "&pause"])}).all_tracks()
    with pytest.raises(InputError, match=r"beats.txt \(mirdata:beatles, track a\), chord 2: '&pause' is not a chord"):
        track.annotation("chords")


def test_a_track_without_an_annotation_has_none(fake):
    first, second = fake(a={"file": None, "genre": " "}, b={}).all_tracks()
    assert first.labels == {}
    assert second.annotation("beats") is None  # its file is there, and mirdata reads nothing from it
    assert first.group == "a"


def test_a_track_without_audio_is_not_listed(fake):
    assert [track.track_id for track in fake(a={"audio": None}, b={}).all_tracks()] == ["b"]
    adapter._corpus.cache_clear()
    with pytest.raises(InputError, match="names no audio file"):
        fake(a={"audio": None}).all_tracks()


def test_splits_of_mirdata_hold(fake):
    tracks = fake(a={"split": "train"}, b={"split": "validation"}, c={"split": "test"}, d={}).all_tracks()
    assert [track.split for track in tracks] == ["train", "valid", "test", derived_split("d")]


def test_where_mirdata_names_no_validation_set_a_tenth_of_the_training_set_is_one(fake):
    tracks = fake(**{f"t{index}": {"split": "test" if index < 20 else "train"} for index in range(220)}).all_tracks()
    splits = [track.split for track in tracks]
    assert splits[:20] == ["test"] * 20
    assert 8 < splits.count("valid") < 40
    assert splits.count("test") == 20


def test_an_artist_is_in_one_split(fake):
    tracks = fake(**{f"t{index}": {"artist": f"artist {index % 30}"} for index in range(90)}).all_tracks()
    assert len({(track.group, track.split) for track in tracks}) == 30


def test_tracks_travel_to_other_processes_and_have_a_digest(fake, tmp_path):
    tracks = fake(a={"beats": beat_data([1.0], None, None)}).all_tracks()
    (tmp_path / "a.wav").write_bytes(b"sound")
    before = split_digest(tracks)
    (track,) = pickle.loads(pickle.dumps(tracks))
    np.testing.assert_array_equal(track.annotation("beats").times, [1.0])
    (tmp_path / "beats.txt").write_text("other")
    assert split_digest(tracks) != before


def test_what_is_missing_is_said_in_one_line(fake, monkeypatch):
    corpus = fake(a={"artist": FileNotFoundError("Metadata not found. Did you run .download()?")})
    with pytest.raises(InputError, match="lacks a file that states 'artist': Metadata not found"):
        corpus.all_tracks()
    with pytest.raises(InputError, match=r"'beetles' is no corpus of mirdata: did you mean 'beatles'\?"):
        Mirdata(name="beetles", root=corpus.root).all_tracks()
    with pytest.raises(InputError, match="dataset=mirdata needs dataset.name=NAME: one of beatles, orchset"):
        Mirdata(root=corpus.root).all_tracks()
    with pytest.raises(InputError, match="dataset=mirdata needs dataset.root"):
        Mirdata(name="beatles").all_tracks()
    monkeypatch.setitem(sys.modules, "mirdata", None)
    with pytest.raises(InputError, match=r"pip install musictf\[mirdata\]") as caught:
        corpus.all_tracks()
    assert "\n" not in str(caught.value)


def test_the_command_that_fetches_the_index_is_named(fake, tmp_path):
    corpus = fake()

    class Absent:
        @property
        def track_ids(self):
            raise FileNotFoundError("This dataset's index must be downloaded. Did you run .download()?")

    sys.modules["mirdata"].initialize = lambda *args, **kwargs: Absent()
    with pytest.raises(InputError, match=rf"data_home='{tmp_path}'\).download\(\['index'\]\)"):
        corpus.all_tracks()


def test_the_name_is_a_key():
    config = OmegaConf.merge(OmegaConf.structured(Mirdata), {"name": "beatles", "root": ["a"]})
    corpus = OmegaConf.to_object(config)
    assert (corpus.name, corpus.label, Mirdata.name) == ("beatles", "mirdata:beatles", "mirdata")


# --- mirdata itself


@pytest.fixture
def indexed(monkeypatch, tmp_path):
    """Give mirdata an index: what it would download."""
    pytest.importorskip("mirdata", reason="the extra mirdata is not installed")
    import mirdata.core

    def install(tracks):
        (tmp_path / "index.json").write_text(json.dumps({"version": "1", "tracks": tracks}))
        monkeypatch.setattr(mirdata.core.Index, "get_path", lambda self: str(tmp_path / "index.json"))

    return install


SONG = "01_-_Please_Please_Me/11_-_Do_You_Want_To_Know_A_Secret"
PATHS = {
    "audio": [f"audio/{SONG}.wav", None],
    "beat": [f"annotations/beat/The Beatles/{SONG}.txt", None],
    "chords": [f"annotations/chordlab/The Beatles/{SONG}.lab", None],
    "keys": [f"annotations/keylab/The Beatles/{SONG}.lab", None],
    "sections": [f"annotations/seglab/The Beatles/{SONG}.lab", None],
}


def test_mirdata_reads_what_we_write(indexed, tmp_path):
    texts = {
        "beat": "13.249\t2\n13.959\t3\n14.416\tNew Point\n14.965\t1\n15.453\t2\n",
        "chords": "0.000000 0.497838 N\n4.586464 6.989730 E:min\n6.989730 9.985104 G\n",
        "keys": "0.000\t119.333\tKey\tE\n",
    }
    for kind, text in texts.items():
        (tmp_path / PATHS[kind][0]).parent.mkdir(parents=True)
        (tmp_path / PATHS[kind][0]).write_text(text)
    silent = PATHS | {"beat": [None, None], "keys": [None, None]}
    indexed({"0111": PATHS, "10212": silent})
    first, second = Mirdata(name="beatles", root=str(tmp_path)).all_tracks()
    assert first.audio == tmp_path / PATHS["audio"][0]
    np.testing.assert_array_equal(first.annotation("beats").positions, [2, 3, 4, 1, 2])
    assert first.annotation("chords").labels == ["N", "X", "E:min", "G"]
    assert first.annotation("key") == "E major"
    assert set(second.labels) == {"chords"}
    assert first.labels["beats"].path == tmp_path / PATHS["beat"][0]


def test_mirdata_without_its_index_says_how_to_fetch_it(tmp_path):
    mirdata = pytest.importorskip("mirdata", reason="the extra mirdata is not installed")
    if Path(mirdata.initialize("beatles").index_path).is_file():
        pytest.skip("the index is here")
    with pytest.raises(InputError, match=r"has no index yet .*download\(\['index'\]\)"):
        Mirdata(name="beatles", root=str(tmp_path)).all_tracks()
    with pytest.raises(InputError, match="Invalid version 9"):
        Mirdata(name="beatles", root=str(tmp_path), version="9").all_tracks()


@pytest.mark.skipif(not REAL.is_dir(), reason="real layouts, cut down, are not at hand")
@pytest.mark.parametrize(
    ("name", "paths", "labels"),
    [
        ("beatles", PATHS, {"beats", "chords", "key"}),
        (
            "rwc_popular",
            {
                "audio": ["audio/rwc-p-m01/1.wav", None],
                "beats": ["annotations/AIST.RWC-MDB-P-2001.BEAT/RM-P001.BEAT.TXT", None],
                "chords": ["annotations/AIST.RWC-MDB-P-2001.CHORD/RWC_Pop_Chords/N001-M01-T01.lab", None],
                "sections": [None, None],
                "voca_inst": [None, None],
            },
            None,
        ),
        (
            "ballroom",
            {
                "audio": ["B_1.0/audio/Waltz/Media-105901.wav", None],
                "beats": ["B_1.0/annotations/beats/Media-105901.beats", None],
                "tempo": ["B_1.0/annotations/tempo/Media-105901.bpm", None],
            },
            {"beats", "tempo", "genre"},
        ),
    ],
)
def test_real_layouts_are_read(indexed, name, paths, labels):
    indexed({"a": paths})
    corpus = Mirdata(name=name, root=str(REAL / name))
    if labels is None:  # artists stand in a file of metadata that this copy lacks
        with pytest.raises(InputError, match="lacks a file that states 'tempo': Metadata not found"):
            corpus.all_tracks()
        return
    (track,) = corpus.all_tracks()
    assert set(track.labels) == labels
    assert track.audio.is_file()
    assert all(track.annotation(label) is not None for label in labels)
