"""The notes of each player over the chords and sections of a plan.

Conventions: a note is a row (onset in beats, length in beats, MIDI pitch or drum, loudness 0 to 1). Every part plays
the annotated chord: the first note after a change of chord is a chord tone, and that of the bass is the chord's bass.
"""

from __future__ import annotations

import numpy as np

from musictf.synthesis.form import Plan, Section
from musictf.synthesis.harmony import QUALITIES, Chord, Key
from musictf.synthesis.patterns import (
    BASS_PATTERNS,
    BLOCK_PATTERNS,
    BROKEN_PATTERNS,
    CRASH,
    DRUM_PATTERNS,
    FILLS,
    HAT,
    KICK,
    OPEN_HAT,
    RIDE,
    SNARE,
    TOM,
    steps,
)

Note = tuple[float, float, float, float]


def chord_notes(
    rng: np.random.Generator, plan: Plan, section: Section, pattern: str, lowest: int, with_bass: bool
) -> list[Note]:
    """Accompaniment of one section.

    Args:
        rng: Source of randomness.
        plan: Chords and metre.
        section: Where to play.
        pattern: From ``BLOCK_PATTERNS`` or ``BROKEN_PATTERNS``.
        lowest: Lowest MIDI pitch of all chords, whose tones lie within an octave: voices then move by small steps.
        with_bass: Add the chord's bass below, in sections without a bass player.
    """
    notes: list[Note] = []
    without_fifth, is_open = rng.random() < 0.35, rng.random() < 0.3
    for onset, length, character in _onsets(plan, section, pattern, insert="x" if "x" in pattern else "0"):
        event = plan.event_at(onset)
        if event.chord is None:
            continue
        end = min(onset + length, event.end, section.end)
        classes = list(event.chord.pitch_classes)
        if without_fifth and len(classes) == 4:
            classes.remove((event.chord.root + QUALITIES[event.chord.quality][2]) % 12)
        tones = sorted(_placed(pitch_class, lowest) for pitch_class in classes)
        if is_open:  # the second tone an octave higher
            tones = sorted([tones[0], tones[1] + 12, *tones[2:]])
        if character == "x":
            notes += [(onset, end - onset, pitch, _accent(onset)) for pitch in tones]
        else:
            octave, tone = divmod(int(character), len(tones))
            notes.append((onset, end - onset, tones[tone] + 12 * octave, _accent(onset)))
    if with_bass:  # held as long as the chord
        spans = [(max(event.start, section.start), min(event.end, section.end), event.chord) for event in plan.events]
        notes += [
            (start, end - start, _placed(chord.bass, lowest - 16), 0.75)
            for start, end, chord in spans
            if chord is not None and end - start > 1e-6
        ]
    return notes


def bass_notes(rng: np.random.Generator, plan: Plan, section: Section, pattern: str) -> list[Note]:
    """Bass line of one section, from E1 (MIDI 28) to the B a twelfth above; ``pattern`` is from ``BASS_PATTERNS``."""
    notes: list[Note] = []
    for onset, length, character in _onsets(plan, section, pattern, insert="r"):
        event = plan.event_at(onset)
        chord = event.chord
        if chord is None:
            continue
        end = min(onset + length, event.end, section.end)
        is_first = abs(onset - event.start) < 1e-6  # of its chord: it plays the chord's bass, whatever the pattern
        pitch = _placed(chord.bass, 28)
        if character == "o":
            pitch += 12
        elif character == "f" and not is_first:
            pitch = _placed(chord.root + QUALITIES[chord.quality][2], pitch)
        elif character == "t" and not is_first:
            pitch = _placed(chord.root + QUALITIES[chord.quality][1], pitch)
        elif character == "a" and not is_first:
            # An approach: a semitone or tone beside the bass of the next chord.
            following = plan.event_at(event.end + 1e-3).chord
            pitch = _placed(following.bass, 28) + int(rng.choice([-2, -1, 1, 2])) if following else pitch
        notes.append((onset, end - onset, pitch, 0.9 if is_first else 0.75))
    return notes


def melody_notes(rng: np.random.Generator, plan: Plan, section: Section, lowest: int) -> list[Note]:
    """Melody of one section: a two-bar rhythm, chord tones on the beat, passing notes between, suspensions.

    Args:
        rng: Source of randomness.
        plan: Chords and metre.
        section: Where to play.
        lowest: Lowest MIDI pitch; the range is 17 semitones.
    """
    bar = plan.grid.beats_per_bar
    rhythm = draw_melody_rhythm(rng, plan)
    notes: list[Note] = []
    pitch = lowest + 7  # begin in the middle of the range
    start = section.start
    while start < section.end:
        for onset, length in rhythm:
            beat, on_beat = start + onset, abs(onset - round(onset)) < 1e-6
            event = plan.event_at(beat)
            # A note is left out now and then, so that phrases have rests.
            if beat >= section.end - 1e-6 or event.chord is None or rng.random() < 0.08:
                continue
            held = min(length, section.end - beat)
            if notes and held >= 0.5 and beat - event.start < 0.6 and rng.random() < 0.12:
                # A suspension: the tone stays over the change of chord, then resolves, downwards if possible.
                notes.append((beat, held / 2, pitch, 0.85))
                pitch = _step(rng, pitch - 1, event.chord.pitch_classes, lowest)
                notes.append((beat + held / 2, held / 2, pitch, 0.7))
                continue
            is_chord_tone = on_beat and rng.random() < 0.85
            allowed = event.chord.pitch_classes if is_chord_tone else _scale(event.chord, section.key)
            pitch = _step(rng, pitch, allowed, lowest)
            notes.append((beat, held, pitch, 0.9 if on_beat else 0.75))
        start += 2 * bar
    return notes


def drum_notes(
    rng: np.random.Generator, plan: Plan, section: Section, pattern: tuple[str, str, str], cymbal: int
) -> list[Note]:
    """Drums of one section: a pattern, ghost notes, perhaps a fill at its end and a crash at its start.

    Args:
        rng: Source of randomness.
        plan: Its metre.
        section: Where to play.
        pattern: Kick, snare and cymbal of a bar, from ``DRUM_PATTERNS``.
        cymbal: The drum that plays the third row: a hat or the ride.
    """
    bar = plan.grid.beats_per_bar
    ghost_probability = rng.choice([0.0, 0.02, 0.05])
    fills = FILLS[plan.grid.metre]
    fill = fills[int(rng.integers(len(fills)))] if rng.random() < 0.6 else None
    starts = np.arange(section.start, section.end - 1e-6, bar)
    notes: list[Note] = [(section.start, 1.0, CRASH, 0.8)] if rng.random() < 0.4 else []
    for start in starts:
        rows = [(KICK, pattern[0]), (SNARE, pattern[1]), (cymbal, pattern[2])]
        if fill and start == starts[-1]:
            # The fill replaces the second half of the last bar.
            half = len(pattern[0]) // 2
            rows = [(piece, row[:half] + "." * half) for piece, row in rows] + [(SNARE, fill[0]), (TOM, fill[1])]
        for piece, row in rows:
            for onset, length, stroke in steps(row, bar):
                notes.append((start + onset, length, piece, int(stroke) / 9))  # digits 1 to 9 are loudness
        for step in np.flatnonzero(rng.random(len(pattern[0])) < ghost_probability):
            piece = int(rng.choice([KICK, SNARE, HAT, OPEN_HAT]))
            notes.append((start + step * bar / len(pattern[0]), 0.25, piece, 0.4))
    return [note for note in notes if note[0] < section.end - 1e-6]


def draw_chord_pattern(rng: np.random.Generator, metre: str) -> str:
    """Draw a pattern for an accompaniment: block chords or broken ones."""
    return str(rng.choice((BLOCK_PATTERNS if rng.random() < 0.6 else BROKEN_PATTERNS)[metre]))


def draw_bass_pattern(rng: np.random.Generator, metre: str) -> str:
    """Draw a pattern for the bass."""
    return str(rng.choice(BASS_PATTERNS[metre]))


def draw_drum_pattern(rng: np.random.Generator, metre: str) -> tuple[tuple[str, str, str], int]:
    """Draw a pattern for the drums, and the cymbal that keeps time."""
    patterns = DRUM_PATTERNS[metre]
    return patterns[int(rng.integers(len(patterns)))], int(rng.choice([HAT, HAT, RIDE]))


def _onsets(plan: Plan, section: Section, pattern: str, insert: str) -> list[tuple[float, float, str]]:
    """The pattern over every bar of a section, with a note where a chord begins between its steps."""
    bar = plan.grid.beats_per_bar
    # By onset: length and character. Rounded, so that onsets from different sums of fractions are equal.
    strokes: dict[float, tuple[float, str]] = {}
    for start in np.arange(section.start, section.end - 1e-6, bar):
        for onset, length, character in steps(pattern, bar):
            strokes[round(start + onset, 6)] = (length, character)
    for event in plan.events_in(section.start, section.end):
        onset = round(event.start, 6)
        ahead = min((other for other in strokes if other > onset), default=section.end)
        if onset not in strokes:
            strokes[onset] = (ahead - onset, insert)
        # An anticipated chord replaces the stroke on the beat that it anticipates.
        if abs(onset - round(onset)) > 1e-3 and ahead - onset <= plan.grid.offbeat + 1e-6 and ahead in strokes:
            strokes[onset] = (ahead - onset + strokes.pop(ahead)[0], strokes[onset][1])
    return [(onset, *strokes[onset]) for onset in sorted(strokes) if onset < section.end - 1e-6]


def _placed(pitch_class: int, lowest: int) -> int:
    """The lowest MIDI pitch of a pitch class that is not below ``lowest``."""
    return lowest + (pitch_class - lowest) % 12


def _accent(onset: float) -> float:
    return 0.8 if abs(onset - round(onset)) < 1e-6 else 0.65


def draw_melody_rhythm(rng: np.random.Generator, plan: Plan) -> list[tuple[float, float]]:
    """Draw onsets and lengths in beats over two bars."""
    end = 2.0 * plan.grid.beats_per_bar
    lengths, weights = ([0.5, 1.0, 1.5, 2.0], [0.45, 0.35, 0.1, 0.1])
    if plan.grid.metre == "6/8":
        lengths, weights = [1 / 3, 2 / 3, 1.0], [0.5, 0.25, 0.25]
    rhythm: list[tuple[float, float]] = []
    onset = float(rng.choice([0.0, 0.0, lengths[0], 1.0]))
    while onset < end - 1e-6:
        length = min(float(rng.choice(lengths, p=weights)), end - onset)
        if rng.random() < 0.85:
            rhythm.append((round(onset, 6), length))
        onset += length
    return rhythm


def _scale(chord: Chord, key: Key) -> tuple[int, ...]:
    """The chord's tones, and those of the key's scale that are no semitone from a chord tone outside the scale."""
    foreign = [tone for tone in chord.pitch_classes if tone not in key.scale]
    scale_tones = [tone for tone in key.scale if all((tone - other) % 12 not in {1, 11} for other in foreign)]
    return (*scale_tones, *chord.pitch_classes)


def _step(rng: np.random.Generator, pitch: int, allowed: tuple[int, ...], lowest: int) -> int:
    """A tone near ``pitch``, of the allowed pitch classes, within a range of 17 semitones."""
    tones = np.array([tone for tone in range(lowest, lowest + 17) if tone % 12 in allowed])
    distance = np.abs(tones - pitch)
    # Small steps are more likely, repetitions less so.
    weights = np.exp(-distance / 2.5) * np.where(distance == 0, 0.35, 1.0)
    return int(rng.choice(tones, p=weights / weights.sum()))
