import pytest

from musictf.corpora.fmakv2 import FMAKv2
from musictf.datasets.base import derived_split
from musictf.errors import InputError

ROWS = ",key_and_mode,track_id,spotify_uri\n0,F# Major,10,\n1,Bb Major,141,spotify:track:1\n2,A minor,123456,\n"
FMA = (
    ",album,album,artist,artist,set,set,track\n"
    ",comments,title,id,name,split,subset,title\n"
    "track_id,,,,,,,\n"
    '10,0,"One, two",7,Ann,training,small,"A ""b"""\n'
    "141,0,Other,7,Ann,training,large,C\n"
    "123456,0,Third,8,Bob,validation,large,D\n"
    "999,0,Else,9,Cid,test,large,E\n"
)


def write(root, rows=ROWS, name="fmakv2.csv", fma=None):
    (root / name).write_text(rows)
    if fma is not None:
        (root / "fma_metadata").mkdir()
        (root / "fma_metadata/tracks.csv").write_text(fma)
    return str(root)


@pytest.mark.parametrize("name", ["fmakv2.csv", "fmakv2_metadata.csv"])
def test_keys_and_audio_are_found_by_the_number_of_the_track(tmp_path, name):
    tracks = FMAKv2(root=write(tmp_path, name=name)).read_tracks()
    assert [track.track_id for track in tracks] == ["000010", "000141", "123456"]
    assert [track.labels["key"] for track in tracks] == ["F# major", "Bb major", "A minor"]
    assert tracks[2].audio == tmp_path / "123/123456.mp3"


@pytest.mark.parametrize("folder", ["fma_full", "fma_large", "."])
def test_audio_is_that_of_any_distribution(tmp_path, folder):
    path = tmp_path / folder / "000" / "000010.mp3"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    assert FMAKv2(root=write(tmp_path)).read_tracks()[0].audio == path


def test_without_the_metadata_of_fma_the_split_is_by_hash(tmp_path):
    corpus = FMAKv2(root=write(tmp_path))
    assert [track.split for track in corpus.read_tracks()] == [derived_split(n) for n in ("000010", "000141", "123456")]
    assert corpus.label == "fmakv2:derived"


def test_the_split_of_fma_keeps_artists_together(tmp_path):
    corpus = FMAKv2(root=write(tmp_path, fma=FMA), split="fma")
    tracks = corpus.read_tracks()
    assert [track.split for track in tracks] == ["train", "train", "valid"]
    assert [track.group for track in tracks] == ["artist 7", "artist 7", "artist 8"]
    assert corpus.label == "fmakv2:fma"


def test_a_track_that_fma_does_not_know_is_refused(tmp_path):
    with pytest.raises(InputError, match="tracks.csv: has no track 123456"):
        FMAKv2(root=write(tmp_path, fma=FMA.replace("123456", "5")), split="fma").read_tracks()


@pytest.mark.parametrize("fma", ["", "a,b\nc,d\ne,f\n", FMA.replace("validation", "dev"), FMA.replace("999", "x")])
def test_another_table_than_that_of_fma_is_refused(tmp_path, fma):
    with pytest.raises(InputError, match="tracks.csv: not FMA's table"):
        FMAKv2(root=write(tmp_path, fma=fma), split="fma").read_tracks()


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("track_id,key\n1,C Major\n", "csv:1: has no column 'key_and_mode'"),
        ("track_id,key_and_mode\n1,H Major\n", "csv:2: expected a key"),
        ("track_id,key_and_mode\n1,C Major\nx,C Major\n", "csv:3: expected a key"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, rows, reason):
    with pytest.raises(InputError, match=reason):
        FMAKv2(root=write(tmp_path, rows)).read_tracks()


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match="fmakv2.csv does not exist.*musictf data prepare fmakv2"):
        FMAKv2(root=str(tmp_path)).read_tracks()
    with pytest.raises(InputError, match="fma_metadata/tracks.csv does not exist"):
        FMAKv2(root=write(tmp_path), split="fma").read_tracks()
    with pytest.raises(InputError, match="one of derived, fma"):
        FMAKv2(root="/", split="random")
