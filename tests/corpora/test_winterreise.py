"""Winterreise: bass notes become intervals, keys follow the performance, and a song is in one split."""

from __future__ import annotations

import mir_eval
import numpy as np
import pytest
import soundfile

from musictf.corpora.winterreise import Winterreise, harte
from musictf.errors import InputError

HEADER = "start;end;shorthand;extended;majmin;majmin_inv\n"
# The first rows of a file of the corpus, and two later ones of another.
CHORDS = (
    '1.26;4.74;"C:min";"C:(b3,5)";"C:min";"C:min"\n'
    '4.74;5.34;"B:dim7/C";"B:(b3,b5,bb7)/C";"B:min";"B:min/C"\n'
    '5.34;6.74;"F:min7/G#";"F:(b3,5,b7)/G#";"F:min";"F:min/G#"\n'
    '6.74;8;"G:(3,b5,b7)/C#";"G:(3,b5,b7)/C#";"G:maj";"G:maj/C#"\n'
    '8.5;9;"G";"G:(3,5)";"G:maj";"G:maj"\n'
)
PERFORMANCES = ("AL98", "HU33", "QU98", "SC06")


def copy(root, songs=(1,), top="."):
    folder = root / top / "02_Annotations"
    (folder / "ann_audio_chord").mkdir(parents=True)
    rows = ["WorkID;PerformanceID;key\n"]
    for song in songs:
        for performance in PERFORMANCES:
            path = folder / "ann_audio_chord" / f"Schubert_D911-{song:02d}_{performance}.csv"
            path.write_text(HEADER + CHORDS)
            rows.append(
                f'"Schubert_D911-{song:02d}";"{performance}";"{"Bb:min" if performance == "QU98" else "C:min"}"\n'
            )
    (folder / "ann_audio_globalkey.csv").write_text("".join(rows))
    audio = root / top / "01_RawData" / "audio_wav"
    audio.mkdir(parents=True)
    soundfile.write(audio / "Schubert_D911-01_HU33.wav", np.zeros(800), 8000)
    return folder


@pytest.mark.parametrize("top", [".", "Schubert_Winterreise_Dataset_v2-0"])
def test_a_song_has_chords_and_a_key(tmp_path, top):
    copy(tmp_path, top=top)
    first, second = Winterreise(root=str(tmp_path)).all_tracks()
    assert (first.track_id, second.track_id) == ("Schubert_D911-01_HU33", "Schubert_D911-01_SC06")
    assert first.audio.is_file()
    assert not second.audio.exists()
    assert first.annotation("key") == "C minor"
    chords = first.annotation("chords")
    assert chords.labels == ["C:min", "B:dim7/b2", "F:min7/b3", "G:(3,b5,b7)/b5", "X", "G"]
    scores = mir_eval.chord.evaluate(chords.intervals, chords.labels, chords.intervals, chords.labels)
    assert [scores[name] for name in ("root", "thirds", "triads", "tetrads", "mirex", "seg")] == pytest.approx([1] * 6)


def test_all_performances_can_be_had(tmp_path):
    copy(tmp_path)
    tracks = Winterreise(root=str(tmp_path), performances=None).all_tracks()
    assert [track.track_id[-4:] for track in tracks] == list(PERFORMANCES)
    assert [track.annotation("key") for track in tracks] == ["C minor", "C minor", "Bb minor", "C minor"]
    with pytest.raises(InputError, match="'HU34' is not one of AL98, HU33"):
        Winterreise(root=str(tmp_path), performances=["HU34"]).all_tracks()


def test_no_song_is_in_two_splits_and_every_split_has_songs(tmp_path):
    copy(tmp_path, songs=range(1, 25))
    tracks = Winterreise(root=str(tmp_path)).all_tracks()
    assert len(tracks) == Winterreise.published["tracks"] == 48
    splits = {track.group: {t.split for t in tracks if t.group == track.group} for track in tracks}
    assert len(splits) == 24
    assert all(len(found) == 1 for found in splits.values())
    names = [next(iter(found)) for found in splits.values()]
    assert (names.count("train"), names.count("valid"), names.count("test")) == (18, 3, 3)


@pytest.mark.parametrize("root", ["C", "F#", "Bb", "G#", "B"])
@pytest.mark.parametrize("bass", ["C", "C#", "Db", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"])
def test_the_bass_sounds_the_same_in_harte_syntax(root, bass):
    number, _, interval = mir_eval.chord.encode(harte(f"{root}:min/{bass}"))
    assert (number + interval) % 12 == mir_eval.chord.pitch_class_to_semitone(bass) % 12


@pytest.mark.parametrize("label", ["N", "X", "C", "C#:(3,5,#6)", "A:7/b7", "F:min7/5"])
def test_other_labels_stay_as_they_are(label):
    assert harte(label) == label


def test_a_broken_table_is_named_by_its_line(tmp_path):
    folder = copy(tmp_path)
    path = folder / "ann_audio_chord" / "Schubert_D911-01_HU33.csv"
    (track, _) = Winterreise(root=str(tmp_path)).all_tracks()
    for text, reason in [
        (HEADER + '1;2;"C:mayor";a;b;c\n', ":2: 'C:mayor' is not a chord"),
        (HEADER + '1;two;"C";a;b;c\n', ":2: expected a number"),
        (HEADER + '1;3;"C";a;b;c\n2;4;"G";a;b;c\n', ":3: starts at 2.0 s, before"),
        ("start;end\n1;2\n", ":1: has no column 'shorthand'"),
        (HEADER, "holds no chord"),
    ]:
        path.write_text(text)
        with pytest.raises(InputError, match=reason):
            track.annotation("chords")
    (folder / "ann_audio_globalkey.csv").write_text('WorkID;PerformanceID;key\n"a";"b";"C:dorian"\n')
    with pytest.raises(InputError, match="globalkey.csv:2: 'C:dorian' is not a major or minor key"):
        Winterreise(root=str(tmp_path)).all_tracks()


def test_a_copy_without_annotations_says_what_to_do(tmp_path):
    with pytest.raises(InputError, match="no folder 02_Annotations.*data prepare winterreise"):
        Winterreise(root=str(tmp_path)).all_tracks()
