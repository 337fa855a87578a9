"""Composition of a song: its annotations and the notes of its players, without sound.

Conventions: notes are rows (onset in seconds, length in seconds, MIDI pitch or drum, loudness 0 to 1.2). Beats are
annotated on the grid itself; players deviate from it by a few milliseconds.

Shapes:  n notes of a part   m onsets of a song
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from musictf.annotations import Beats, Chords, Sections
from musictf.synthesis import parts
from musictf.synthesis.form import Floats, Plan, draw_plan
from musictf.synthesis.harmony import key_of

# Enters the name of the cache folder: raise it with every change that alters a note, a sample or an annotation.
VERSION = 2
# Random streams of a track, so that another recording of a song has the same notes; versions use RECORDING + number.
COMPOSITION, RECORDING = 0, 1

# Notes of several players that begin within this time are one onset: players deviate by some milliseconds.
TOGETHER_SECONDS = 0.03

PITCHED_ROLES = ("chords", "second chords", "melody", "bass")


@dataclass(frozen=True)
class Part:
    """The notes of one player, (n, 4); the docstring of the module states their columns."""

    role: str
    notes: Floats


@dataclass(frozen=True)
class Song:
    """A composition and its annotations; tempo in beats per minute."""

    key: str
    tempo_bpm: float
    metre: str
    chords: Chords
    beats: Beats
    sections: Sections
    parts: tuple[Part, ...]

    @property
    def onsets(self) -> Floats:
        """Onset times in seconds, (m,), ascending: of notes that begin together only the first counts."""
        times = np.sort(np.concatenate([part.notes[:, 0] for part in self.parts])) if self.parts else np.empty(0)
        onsets: list[float] = []
        for time in times:
            if not onsets or time - onsets[-1] > TOGETHER_SECONDS:
                onsets.append(float(time))
        return np.array(onsets)


@dataclass(frozen=True)
class _Patterns:
    """Rhythm of each player in sections of one letter."""

    chords: str
    second_chords: str
    bass: str
    drums: tuple[tuple[str, str, str], int]

    @classmethod
    def draw(cls, rng: np.random.Generator, metre: str) -> _Patterns:
        return cls(
            chords=parts.draw_chord_pattern(rng, metre),
            second_chords=parts.draw_chord_pattern(rng, metre),
            bass=parts.draw_bass_pattern(rng, metre),
            drums=parts.draw_drum_pattern(rng, metre),
        )


def compose(seed: int, index: int, seconds: float) -> Song:
    """Song ``index`` of the corpus with this seed; it depends on the three arguments only.

    Args:
        seed: Seed of the corpus.
        index: Number of the track.
        seconds: Length of the recording.
    """
    # Every draw from rng is part of the corpus: another draw, or another order, makes other songs of all seeds.
    rng = np.random.default_rng([seed, index, COMPOSITION])
    plan = draw_plan(rng, key_of(seed, index), seconds)
    jitter = float(rng.choice([0.002, 0.005, 0.009]))
    written = _arrange(rng, plan)
    players = tuple(Part(role, _performed(rng, plan, notes, jitter)) for role, notes in written.items() if notes)
    # Sections that begin before the music ends; equal letters mean equal music.
    end = plan.grid.music_end
    bounds = [tuple(plan.grid.seconds([section.start, section.end])) for section in plan.sections]
    spans = [(start, min(stop, end)) for start, stop in bounds if min(stop, end) - start > 1e-3]
    return Song(
        key=plan.key.name,
        tempo_bpm=round(plan.grid.tempo_bpm, 2),
        metre=plan.grid.metre,
        chords=_chords(plan, seconds),
        beats=_beats(plan),
        sections=Sections(np.round(spans, 6), [section.letter for section in plan.sections[: len(spans)]]),
        parts=tuple(part for part in players if len(part.notes)),
    )


def _arrange(rng: np.random.Generator, plan: Plan) -> dict[str, list[parts.Note]]:
    """Draw the players of the song and their sections, and write the notes of every player, in beats."""
    metre = plan.grid.metre
    # The probability that a player is in the song.
    band = {"second chords": 0.45, "melody": 0.75, "bass": 0.93, "drums": 0.78}
    present = [role for role, probability in band.items() if rng.random() < probability]
    # The probability that a player of the song plays in a section.
    in_section = {"second chords": 0.75, "melody": 0.75, "bass": 0.93, "drums": 0.9}
    lowest = {role: int(rng.integers(50, 68)) for role in PITCHED_ROLES}
    patterns_by_letter = {letter: _Patterns.draw(rng, metre) for letter in "ABC"}
    written: dict[str, list[parts.Note]] = {role: [] for role in ("chords", *present)}
    for number, section in enumerate(plan.sections):
        # In the first section all players play, so that a short track has all of its tags.
        playing = {role for role in present if number == 0 or rng.random() < in_section[role]}
        patterns = patterns_by_letter[section.letter]
        has_no_bass = "bass" not in playing
        written["chords"] += parts.chord_notes(
            rng, plan, section, patterns.chords, lowest["chords"], with_bass=has_no_bass
        )
        if "second chords" in playing:
            written["second chords"] += parts.chord_notes(
                rng, plan, section, patterns.second_chords, lowest["second chords"], with_bass=False
            )
        if "bass" in playing:
            written["bass"] += parts.bass_notes(rng, plan, section, patterns.bass)
        if "melody" in playing:
            written["melody"] += parts.melody_notes(rng, plan, section, lowest["melody"] + 5)
        if "drums" in playing:
            written["drums"] += parts.drum_notes(rng, plan, section, *patterns.drums)
    return written


def _performed(rng: np.random.Generator, plan: Plan, notes: list[parts.Note], jitter: float) -> Floats:
    """Notes as they are played, (n, 4): in seconds, slightly off the grid and of uneven loudness.

    Args:
        rng: Source of randomness.
        plan: Its grid turns beats into seconds.
        notes: Rows in beats, see `musictf.synthesis.parts`.
        jitter: Standard deviation of onsets in seconds.
    """
    rows = np.array(notes, dtype=np.float64)  # (n, 4), in beats
    onsets = plan.grid.seconds(rows[:, 0])
    ends = np.minimum(plan.grid.seconds(rows[:, 0] + rows[:, 1]), plan.grid.music_end)
    played_onsets = np.maximum(onsets + rng.normal(0.0, jitter, len(rows)), 0.0)
    loudness = np.clip(rows[:, 3] * np.exp(rng.normal(0.0, 0.12, len(rows))), 0.05, 1.2)
    played = np.column_stack([played_onsets, np.maximum(ends - played_onsets, 0.03), rows[:, 2], loudness])
    # Notes that the end of the recording would cut to a click are left out.
    return played[onsets < plan.grid.music_end - 0.02]


def _beats(plan: Plan) -> Beats:
    """Beats before the music ends; positions count from 1 in each bar."""
    times = plan.grid.times[plan.grid.times < plan.grid.music_end - 1e-3]
    return Beats(times, np.arange(len(times), dtype=np.int64) % plan.grid.beats_per_bar + 1)


def _chords(plan: Plan, seconds: float) -> Chords:
    """Chord labels without a gap from 0 to the end of the recording: ``N`` before, in breaks and after the music."""
    ends = np.minimum(plan.grid.seconds([event.end for event in plan.events]), plan.grid.music_end)
    bounds = [0.0, float(plan.grid.times[0]), *(float(end) for end in ends), seconds]
    flats = plan.key.flats
    names = ["N", *("N" if event.chord is None else event.chord.label(flats) for event in plan.events), "N"]
    # Rounded to the microsecond like the file, so that writing and reading change nothing.
    rows = [(round(start, 6), round(end, 6), name) for start, end, name in zip(bounds, bounds[1:], names, strict=False)]
    # Shorter than a millisecond: a chord that begins where the music ends.
    rows = [row for row in rows if row[1] - row[0] > 1e-3]
    rows[-1] = (rows[-1][0], seconds, rows[-1][2])
    return Chords(np.array([row[:2] for row in rows], dtype=np.float64), [row[2] for row in rows])
