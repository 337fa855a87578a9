"""The frame of a song: tempo and metre, where its sections lie, and which chord sounds when.

Conventions: positions in beats from the first downbeat, where a beat is what is annotated (a quarter note, or a
dotted quarter in 6/8); times in seconds from the start of the recording.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from musictf.synthesis.harmony import Chord, HarmonicStyle, Key, dressed, progression

Floats = npt.NDArray[np.float64]

# Beats in a bar and the smallest common subdivision of a beat.
METRES: dict[str, tuple[int, int]] = {"4/4": (4, 4), "3/4": (3, 4), "6/8": (2, 3)}
TEMPO_RANGES = {"4/4": (60.0, 170.0), "3/4": (75.0, 170.0), "6/8": (60.0, 105.0)}
FORMS = ("AABA", "ABAB", "AABB", "ABAC", "ABBA", "ABCB")


@dataclass(frozen=True)
class Grid:
    """When beats fall: ``times`` of beats 0, 1, 2, … in seconds; ``swing`` is where the second half of a beat lies."""

    metre: str
    tempo_bpm: float
    swing: float
    times: Floats
    music_end: float

    @property
    def beats_per_bar(self) -> int:
        """Annotated beats in a bar."""
        return METRES[self.metre][0]

    @property
    def offbeat(self) -> float:
        """Length in beats of the last notated subdivision that a pushed chord takes from the bar before."""
        return 0.5 if METRES[self.metre][1] == 4 else 1 / 3

    def seconds(self, beats: npt.ArrayLike) -> Floats:
        """Times of positions in beats; positions inside a beat are swung, the beats themselves never."""
        whole, part = np.divmod(np.asarray(beats, dtype=np.float64), 1.0)
        swung = np.interp(part, [0.0, 0.5, 1.0], [0.0, self.swing, 1.0])
        return np.interp(whole + swung, np.arange(len(self.times)), self.times).astype(np.float64)


@dataclass(frozen=True)
class ChordEvent:
    """A chord from ``start`` to ``end`` in beats; None is a break, in which no pitched part plays."""

    start: float
    end: float
    chord: Chord | None


@dataclass(frozen=True)
class Section:
    """One section as it is played once: its letter, its place in beats, and its key."""

    letter: str
    start: float
    end: float
    key: Key


@dataclass(frozen=True)
class Plan:
    """Everything the players agree on before they play."""

    key: Key
    grid: Grid
    sections: list[Section]
    events: list[ChordEvent]

    def event_at(self, beat: float) -> ChordEvent:
        """The chord event that sounds at a position."""
        return self.events[max(0, bisect_right([event.start for event in self.events], beat + 1e-6) - 1)]

    def events_in(self, start: float, end: float) -> list[ChordEvent]:
        """Events that begin in a span of beats."""
        return [event for event in self.events if start - 1e-6 <= event.start < end - 1e-6]


def draw_grid(rng: np.random.Generator, seconds: float) -> Grid:
    """Metre, tempo, its drift, swing, and where in the recording the music begins and ends."""
    metre = str(rng.choice(list(METRES), p=[0.74, 0.13, 0.13]))
    tempo = float(np.exp(rng.uniform(*np.log(TEMPO_RANGES[metre]))))
    lead_in = rng.uniform(0.05, 2.0)
    count = int(np.ceil(seconds * tempo / 60 * 1.1)) + 16
    wave = rng.uniform(0.0, 0.015) * np.sin(2 * np.pi * (np.arange(count) / rng.uniform(24, 96) + rng.uniform()))
    walk = np.cumsum(rng.normal(0.0, 0.0015, count))
    periods = 60.0 / tempo * (1.0 + wave + walk - walk.mean())
    times = lead_in + np.concatenate([[0.0], np.cumsum(periods)])
    swing = float(rng.uniform(0.58, 0.67)) if METRES[metre][1] == 4 and rng.random() < 0.25 else 0.5
    # Half of the recordings are cut out of the middle of a song, as excerpts are; the others come to an end.
    music_end = seconds
    if rng.random() < 0.5:
        bars = times[:: METRES[metre][0]]
        music_end = float(max(bars[1], bars[bars <= seconds - rng.uniform(0.3, 2.0)][-1]))
    return Grid(metre, tempo, swing, times, min(music_end, seconds))


def draw_plan(rng: np.random.Generator, key: Key, seconds: float) -> Plan:
    """The whole frame of a song."""
    grid = draw_grid(rng, seconds)
    style = HarmonicStyle.draw(rng)
    total = float(np.searchsorted(grid.times, grid.music_end, side="left"))
    themes = {letter: _theme(rng, key, grid, style) for letter in "ABC"}
    lift = int(rng.choice([1, 2])) if rng.random() < 0.12 else 0
    form = str(rng.choice(FORMS))
    sections: list[Section] = []
    played: list[tuple[float, Chord]] = []
    start = 0.0
    while start < total:
        letter = form[len(sections) % len(form)]
        raised = lift if len(sections) >= 3 else 0
        theme = [(length, Chord((c.root + raised) % 12, c.quality, c.bass_degree)) for length, c in themes[letter]]
        end = start + sum(length for length, _ in theme)
        sections.append(Section(letter, start, min(end, total), key.up(raised)))
        played += theme
        start = end
    events = _with_break(rng, _with_pushes(rng, _laid_out(played, total), grid), sections, grid)
    return Plan(key, grid, sections, events)


def _theme(rng: np.random.Generator, key: Key, grid: Grid, style: HarmonicStyle) -> list[tuple[float, Chord]]:
    """Chords of a section: a progression at its own pace, repeated until the section has at least four bars."""
    bars_each = float(rng.choice([0.5, 1.0, 2.0], p=[0.3, 0.52, 0.18]))
    beats_each = bars_each * grid.beats_per_bar
    if not beats_each.is_integer():
        beats_each = float(grid.beats_per_bar)
    plain = progression(rng, key)
    while len(plain) * beats_each < 4 * grid.beats_per_bar:
        plain = plain * 2
    return dressed(rng, plain, beats_each, key, style)


def _laid_out(played: list[tuple[float, Chord]], total: float) -> list[ChordEvent]:
    """Chords one after the other, equal neighbours joined, cut where the music ends."""
    events: list[ChordEvent] = []
    start = 0.0
    for length, chord in played:
        end = min(start + length, total)
        if end <= start:
            break
        if events and events[-1].chord == chord:
            events[-1] = ChordEvent(events[-1].start, end, chord)
        else:
            events.append(ChordEvent(start, end, chord))
        start = end
    return events


def _with_pushes(rng: np.random.Generator, events: list[ChordEvent], grid: Grid) -> list[ChordEvent]:
    """Anticipations: some chords come a subdivision early, and are annotated where they sound."""
    probability = float(rng.choice([0.0, 0.0, 0.25, 0.6]))
    starts = [event.start for event in events] + [events[-1].end]
    for number in range(1, len(events)):
        if events[number].end - events[number].start >= 1 and rng.random() < probability:
            starts[number] -= grid.offbeat
    return [ChordEvent(starts[i], starts[i + 1], event.chord) for i, event in enumerate(events)]


def _with_break(
    rng: np.random.Generator, events: list[ChordEvent], sections: list[Section], grid: Grid
) -> list[ChordEvent]:
    """In some songs the last bar of one section has no chord: the drums play alone, or nobody does."""
    if rng.random() >= 0.3 or len(sections) < 2:
        return events
    end = sections[int(rng.integers(len(sections) - 1))].end
    start = end - grid.beats_per_bar
    result: list[ChordEvent] = []
    for event in events:
        # What began early into the break is taken back to the barline, so that the break ends where it should.
        pieces = [(event.start, min(event.end, start)), (max(event.start, end), event.end)]
        result += [ChordEvent(left, right, event.chord) for left, right in pieces if right - left > 1e-6]
    place = sum(event.start < start for event in result)
    return [*result[:place], ChordEvent(start, end, None), *result[place:]]
