"""A song on paper: its truth and the notes of its players, in seconds. No sound yet.

Conventions: notes are rows (onset in seconds, length in seconds, MIDI pitch or drum, loudness 0..1). The beats are the
grid itself; players stray from it by a few milliseconds.
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
# Random streams of a track; versions use RECORDING + number.
COMPOSITION, RECORDING = 0, 1

# Notes of several players that begin within this time are one onset: they stray by some milliseconds.
TOGETHER_SECONDS = 0.03

PITCHED_ROLES = ("chords", "second chords", "melody", "bass")


@dataclass(frozen=True)
class Part:
    """The notes of one player, (n, 4); see the module for their columns."""

    role: str
    notes: Floats


@dataclass(frozen=True)
class Song:
    """A composition and everything that is known about it."""

    key: str
    tempo_bpm: float
    metre: str
    chords: Chords
    beats: Beats
    sections: Sections
    parts: tuple[Part, ...]

    @property
    def onsets(self) -> Floats:
        """When notes begin, in seconds: the first of those that begin together."""
        times = np.sort(np.concatenate([part.notes[:, 0] for part in self.parts])) if self.parts else np.empty(0)
        onsets: list[float] = []
        for time in times:
            if not onsets or time - onsets[-1] > TOGETHER_SECONDS:
                onsets.append(float(time))
        return np.array(onsets)


@dataclass(frozen=True)
class _Patterns:
    """Who plays which rhythm in sections of one letter."""

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
    """Song ``index`` of the corpus with this seed: it depends on nothing else than these three.

    Args:
        seed: Seed of the corpus.
        index: Number of the track.
        seconds: Length of the recording.
    """
    rng = np.random.default_rng([seed, index, COMPOSITION])
    plan = draw_plan(rng, key_of(seed, index), seconds)
    jitter = float(rng.choice([0.002, 0.005, 0.009]))
    written = _arrange(rng, plan)
    players = tuple(Part(role, _performed(rng, plan, notes, jitter)) for role, notes in written.items() if notes)
    return Song(
        key=plan.key.name,
        tempo_bpm=round(plan.grid.tempo_bpm, 2),
        metre=plan.grid.metre,
        chords=_chords(plan, seconds),
        beats=_beats(plan),
        sections=_sections(plan),
        parts=tuple(part for part in players if len(part.notes)),
    )


def _arrange(rng: np.random.Generator, plan: Plan) -> dict[str, list[parts.Note]]:
    """Notes of every player in beats: who plays in the song, and in which of its sections."""
    metre = plan.grid.metre
    band = {"second chords": 0.45, "melody": 0.75, "bass": 0.93, "drums": 0.78}
    present = [role for role, probability in band.items() if rng.random() < probability]
    loyal = {"second chords": 0.75, "melody": 0.75, "bass": 0.93, "drums": 0.9}
    lowest = {role: int(rng.integers(50, 68)) for role in PITCHED_ROLES}
    playbook = {letter: _Patterns.draw(rng, metre) for letter in "ABC"}
    written: dict[str, list[parts.Note]] = {role: [] for role in ("chords", *present)}
    for number, section in enumerate(plan.sections):
        # In the first section everybody plays who is in the band, so that a short track has its tags too.
        playing = {role for role in present if number == 0 or rng.random() < loyal[role]}
        patterns = playbook[section.letter]
        alone = "bass" not in playing
        written["chords"] += parts.chord_notes(rng, plan, section, patterns.chords, lowest["chords"], with_bass=alone)
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
    """Written notes as they are played: in seconds, a little off the grid and of uneven loudness."""
    rows = np.array(notes, dtype=np.float64)
    onsets = plan.grid.seconds(rows[:, 0])
    ends = np.minimum(plan.grid.seconds(rows[:, 0] + rows[:, 1]), plan.grid.music_end)
    strayed = np.maximum(onsets + rng.normal(0.0, jitter, len(rows)), 0.0)
    loudness = np.clip(rows[:, 3] * np.exp(rng.normal(0.0, 0.12, len(rows))), 0.05, 1.2)
    played = np.column_stack([strayed, np.maximum(ends - strayed, 0.03), rows[:, 2], loudness])
    return played[onsets < plan.grid.music_end - 0.02]


def _beats(plan: Plan) -> Beats:
    times = plan.grid.times[plan.grid.times < plan.grid.music_end - 1e-3]
    return Beats(times, np.arange(len(times), dtype=np.int64) % plan.grid.beats_per_bar + 1)


def _sections(plan: Plan) -> Sections:
    """Sections that begin before the music ends; letters name what returns."""
    end = plan.grid.music_end
    bounds = [tuple(plan.grid.seconds([section.start, section.end])) for section in plan.sections]
    kept = [(start, min(stop, end)) for start, stop in bounds if min(stop, end) - start > 1e-3]
    return Sections(np.round(kept, 6), [section.letter for section in plan.sections[: len(kept)]])


def _chords(plan: Plan, seconds: float) -> Chords:
    """Chord labels without a gap from 0 to the end: ``N`` before, between and after the music."""
    ends = np.minimum(plan.grid.seconds([event.end for event in plan.events]), plan.grid.music_end)
    bounds = [0.0, float(plan.grid.times[0]), *(float(end) for end in ends), seconds]
    flats = plan.key.flats
    names = ["N", *("N" if event.chord is None else event.chord.label(flats) for event in plan.events), "N"]
    # To the microsecond, as the file has it, so that writing and reading change nothing.
    rows = [(round(start, 6), round(end, 6), name) for start, end, name in zip(bounds, bounds[1:], names, strict=False)]
    rows = [row for row in rows if row[1] - row[0] > 1e-3]
    rows[-1] = (rows[-1][0], seconds, rows[-1][2])
    return Chords(np.array([row[:2] for row in rows], dtype=np.float64), [row[2] for row in rows])
