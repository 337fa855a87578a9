"""OpenMIC-2018: judged and unknown instruments, and splits by artist."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictf.corpora.openmic2018 import OpenMIC2018
from musictf.datasets.base import derived_split
from musictf.errors import InputError

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "formats" / "openmic2018"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real layout at hand: {REAL}")


def write(root, clips, judged=(), parts=None):
    """A corpus of clips {name: artist id}; ``judged`` lists (clip, instrument, relevance)."""
    parts = parts or {"train": list(clips), "test": []}
    (root / "partitions").mkdir(parents=True)
    (root / "class-map.json").write_text(json.dumps({"banjo": 0, "flute": 1, "voice": 2}))
    for part in ("train", "test"):
        (root / "partitions" / f"split01_{part}.csv").write_text("".join(f"{clip}\n" for clip in parts[part]))
    lines = "".join(f"{clip},{instrument},{relevance},3\n" for clip, instrument, relevance in judged)
    (root / "openmic-2018-aggregated-labels.csv").write_text(f"sample_key,instrument,relevance,num_responses\n{lines}")
    lines = "".join(f'{artist},"Art{artist}, the","two\nlines",{clip}\n' for clip, artist in clips.items())
    (root / "openmic-2018-metadata.csv").write_text(f"artist_id,artist_name,track_information,sample_key\n{lines}")
    for clip in clips:
        (root / "audio" / clip[:3]).mkdir(parents=True, exist_ok=True)
        soundfile.write(root / "audio" / clip[:3] / f"{clip}.ogg", np.zeros(100), 8000)
    return OpenMIC2018(root=str(root))


def test_tags_are_the_judged_instruments_that_are_there(tmp_path):
    judged = [("000046_3840", "voice", 0.5), ("000046_3840", "banjo", 0.49999), ("000135_0", "flute", 0.1)]
    corpus = write(tmp_path, {"000046_3840": 4, "000135_0": 52, "100200_0": 7}, judged)
    first, second, third = corpus.all_tracks()
    assert first.audio == tmp_path / "audio" / "000" / "000046_3840.ogg"
    assert first.audio.is_file()
    assert third.audio.parent.name == "100"
    assert (first.annotation("tags"), first.annotation("tags_known")) == (["voice"], ["banjo", "voice"])
    assert (second.annotation("tags"), second.annotation("tags_known")) == ([], ["flute"])
    assert (third.annotation("tags"), third.annotation("tags_known")) == ([], [])
    assert (first.annotation("artist"), first.group) == ("Art4, the", "4")


def test_validation_artists_come_out_of_the_training_part_alone(tmp_path):
    clips = {f"{number:06d}_0": number // 4 for number in range(400)}
    parts = {"train": list(clips)[:300], "test": list(clips)[300:]}
    corpus = write(tmp_path, clips, parts=parts)
    assert [track.track_id for track in corpus.tracks("test")] == parts["test"]
    valid, train = ({track.group for track in corpus.tracks(split)} for split in ("valid", "train"))
    assert valid == {group for group in {str(n) for n in range(75)} if derived_split(group) == "valid"}
    assert valid
    assert not valid & train
    assert len(corpus.all_tracks()) == 400


def test_the_folder_around_the_archive_will_do(tmp_path):
    write(tmp_path / "openmic-2018", {"000046_3840": 4})
    assert len(OpenMIC2018(root=str(tmp_path)).all_tracks()) == 1


def test_absent_audio_is_listed_and_an_absent_index_is_named(tmp_path):
    corpus = write(tmp_path, {"000046_3840": 4})
    (tmp_path / "audio" / "000" / "000046_3840.ogg").unlink()
    assert len(corpus.all_tracks()) == 1
    (tmp_path / "partitions" / "split01_test.csv").unlink()
    with pytest.raises(InputError, match="split01_test.csv does not exist; musictf data prepare openmic2018 ROOT"):
        corpus.all_tracks()


@pytest.mark.parametrize(
    ("row", "reason"),
    [(("a", "kazoo", 1), ":2: instrument 'kazoo'"), (("a", "banjo", "yes"), ":2: expected a number")],
)
def test_a_mistake_is_named_by_its_line(tmp_path, row, reason):
    with pytest.raises(InputError, match=f"aggregated-labels.csv{reason}"):
        write(tmp_path, {"a": 1}, [row]).all_tracks()


@real
def test_the_real_layout_reads():
    tracks = {track.track_id: track for track in OpenMIC2018(root=str(REAL)).all_tracks()}
    assert len(tracks) == 20
    assert sum(track.split == "test" for track in tracks.values()) == 10
    clip = tracks["000046_3840"]
    assert (clip.annotation("tags"), clip.annotation("tags_known")) == ([], ["clarinet", "flute", "trumpet"])
    assert (clip.annotation("artist"), clip.group) == ("Nicky Cook", "4")
    assert soundfile.info(clip.audio).frames > 0
