import numpy as np
import pytest
import soundfile

from musictf.corpora.tinysol import TinySOL
from musictf.datasets.corpus_check import check
from musictf.errors import InputError

HEADER = (
    "Path,Fold,Family,Instrument (abbr.),Instrument (in full),Technique (abbr.),Technique (in full),Pitch,Pitch ID,"
    "Dynamics,Dynamics ID,Instance ID,String ID (if applicable),Needed digital retuning\n"
)
NOTES = [(f"Brass/Bass_Tuba/ordinario/BTb-ord-F#{fold}-pp-N-N.wav", fold, "F#1", 30) for fold in range(5)]


def write(root, notes=NOTES, audio="TinySOL", index="."):
    rows = (f"{path},{fold},Brass,BTb,Bass Tuba,ord,ordinario,{p},{n},pp,0,0,,FALSE\n" for path, fold, p, n in notes)
    (root / index).mkdir(exist_ok=True)
    (root / index / "TinySOL_metadata.csv").write_text(HEADER + "".join(rows))
    for path, *_ in notes:
        (root / audio / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / audio / path, np.zeros(441), 44100)
    return str(root)


@pytest.mark.parametrize("fold", range(5))
def test_each_official_fold_is_the_test_split_once(tmp_path, fold):
    corpus = TinySOL(root=write(tmp_path), fold=fold)
    splits = [track.split for track in corpus.read_tracks()]
    assert splits[fold] == "test"
    assert splits[(fold + 1) % 5] == "valid"
    assert splits.count("train") == 3
    assert corpus.label == f"tinysol:fold{fold}"


def test_a_note_has_its_instrument_and_pitch(tmp_path):
    track = TinySOL(root=write(tmp_path)).read_tracks()[0]
    assert track.track_id == "BTb-ord-F#0-pp-N-N"
    assert track.labels == {"instrument": "Bass Tuba", "family": "Brass", "pitch": "F#1", "pitch_id": 30}


@pytest.mark.parametrize(("audio", "index"), [("TinySOL", "."), ("audio", "annotation"), (".", ".")])
def test_every_layout_passes_the_check(tmp_path, audio, index):
    check(TinySOL(root=write(tmp_path, audio=audio, index=index)))


@pytest.mark.parametrize("note", [("a.wav", 5, "C4", 60), ("a.wav", "", "C4", 60), ("a.wav", 0, "C4", "C4")])
def test_a_wrong_row_is_named(tmp_path, note):
    with pytest.raises(InputError, match="metadata.csv:3: expected a fold"):
        TinySOL(root=write(tmp_path, [NOTES[0], note])).read_tracks()


@pytest.mark.parametrize("fold", [-1, 5])
def test_a_fold_that_does_not_exist_is_refused(fold):
    with pytest.raises(InputError, match=f"dataset.fold={fold} must be"):
        TinySOL(root="/", fold=fold)


def test_a_missing_index_is_named(tmp_path):
    with pytest.raises(InputError, match="TinySOL_metadata.csv does not exist.*musictf data prepare tinysol"):
        TinySOL(root=str(tmp_path)).read_tracks()
