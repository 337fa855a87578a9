"""Robustness: the configuration, and the rows when it is on."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from musictf.annotations import Beats
from musictf.audio.perturb import PERTURBATIONS
from musictf.datasets.base import Track
from musictf.errors import InputError
from musictf.evaluation.robustness import RobustnessConfig, curves


def composed(*overrides):
    """The configuration as a command composes it: no key can be added."""
    schema = OmegaConf.structured(RobustnessConfig)
    OmegaConf.set_struct(schema, True)
    return OmegaConf.to_object(OmegaConf.merge(schema, OmegaConf.from_dotlist(list(overrides))))


@pytest.fixture
def tracks(tmp_path, corpus_maker):
    folder = corpus_maker(tmp_path / "tones", num_tracks=2)
    beats = {"beats": Beats(np.array([0.5, 1.0]))}
    return [Track(track_id=path.stem, audio=path, labels=beats) for path in sorted(folder.glob("*.wav"))]


def test_it_is_off_by_default(tracks):
    assert curves(tracks, RobustnessConfig(), lambda _: pytest.fail("scored")) == []


def test_keys_of_a_command_choose_perturbations_and_amounts():
    config = composed("perturbations=[gain,pitch]", "amounts.pitch=[1,-1]")
    assert config.perturbations == ["gain", "pitch"]
    assert config.amounts_of("pitch") == [-1, 1]
    assert config.amounts_of("gain") == sorted(PERTURBATIONS["gain"].amounts)
    with pytest.raises(OmegaConfBaseException, match="pich"):
        composed("amounts.pich=[1]")


def test_amounts_of_one_perturbation_leave_the_others_theirs():
    config = RobustnessConfig(perturbations=["noise"], amounts={"pitch": [1.0]})
    assert config.amounts_of("noise") == [0, 10, 20, 30]


def test_the_neutral_amount_is_not_scored_twice():
    assert RobustnessConfig(amounts={"gain": [-6.0, 0.0, 6.0]}).amounts_of("gain") == [-6, 6]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"perturbations": ["reverb"]}, "robustness.perturbations: 'reverb' is unknown"),
        ({"perturbations": ["gain", "gain"]}, "give each once"),
        ({"amounts": {"echo": [1.0]}}, "robustness.amounts: 'echo' is unknown"),
        ({"amounts": {"pitch": [0.5]}}, "robustness.amounts.pitch=0.5 must be a whole number from -6 to 6"),
        ({"amounts": {"stretch": []}}, "robustness.amounts.stretch=.*at least one"),
        ({"amounts": {"stretch": [0.9, 0.9]}}, "each once"),
    ],
)
def test_an_invalid_value_is_refused_in_one_line(wrong, message):
    with pytest.raises(InputError, match=message) as refusal:
        RobustnessConfig(**wrong)
    assert "\n" not in str(refusal.value)


def test_every_condition_is_scored_once_on_the_same_tracks(tracks):
    seen = []

    def score(given):
        seen.append([track.track_id for track in given])
        first = given[0]
        seconds = soundfile.info(first.audio).duration
        return [{"system": s, "seconds": seconds, "beat": first.annotation("beats").times[0]} for s in ("a", "b")]

    config = RobustnessConfig(perturbations=["gain", "stretch"], amounts={"gain": [-6.0], "stretch": [0.8, 1.25]})
    rows = curves(tracks, config, score)
    assert seen == [[track.track_id for track in tracks]] * 4
    conditions_of_rows = [(row["system"], row["perturbation"]["name"], row["perturbation"]["amount"]) for row in rows]
    expected = [("clean", None), ("gain", -6), ("stretch", 0.8), ("stretch", 1.25)]
    assert conditions_of_rows == [(system, *condition) for condition in expected for system in ("a", "b")]
    assert [row["seconds"] for row in rows[::2]] == pytest.approx([3, 3, 3.75, 2.4])
    assert [row["beat"] for row in rows[::2]] == pytest.approx([0.5, 0.5, 0.625, 0.4])
    assert rows[2]["perturbation"]["unit"] == "dB"
