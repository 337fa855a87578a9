"""The form of a song: tempo and metre, the position of its sections, and its chords.

Conventions: positions are in beats from the first downbeat, where a beat is an annotated beat (a quarter note, or a
dotted quarter in 6/8); times are in seconds from the start of the recording.

Shapes:  b beats of the grid   k positions
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from musictf.synthesis.harmony import Chord, HarmonicStyle, Key, embellished, progression

Floats = npt.NDArray[np.float64]

# Beats in a bar and the smallest common subdivision of a beat.
METRES: dict[str, tuple[int, int]] = {"4/4": (4, 4), "3/4": (3, 4), "6/8": (2, 3)}
# In beats per minute, drawn on a logarithmic scale.
TEMPO_RANGES = {"4/4": (60.0, 170.0), "3/4": (75.0, 170.0), "6/8": (60.0, 105.0)}
# Sections of a song, repeated until the music ends.
FORMS = ("AABA", "ABAB", "AABB", "ABAC", "ABBA", "ABCB")


@dataclass(frozen=True)
class Grid:
    """Times of the beats.

    Attributes:
        metre: Key of ``METRES``.
        tempo_bpm: Mean tempo in beats per minute.
        swing: Position of the second half of a beat within the beat: 0.5 is straight.
        times: Times of beats 0, 1, 2, … in seconds, (b,).
        music_end: End of the music in seconds.
    """

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
        """How early an anticipated chord begins, in beats: by the last subdivision of the bar before."""
        return 0.5 if METRES[self.metre][1] == 4 else 1 / 3

    def seconds(self, beats: npt.ArrayLike) -> Floats:
        """Times in seconds, (k,), of positions in beats, (k,); swing moves positions inside a beat, not the beats."""
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
    """One occurrence of a section: its letter, its start and end in beats, and its key."""

    letter: str
    start: float
    end: float
    key: Key


@dataclass(frozen=True)
class Plan:
    """What all players share: key, grid, sections and chords."""

    key: Key
    grid: Grid
    sections: list[Section]
    events: list[ChordEvent]

    def event_at(self, beat: float) -> ChordEvent:
        """The chord event at a position in beats."""
        # 1e-6: positions are sums of fractions of a beat, and may lie just before the event that they begin.
        return self.events[max(0, bisect_right([event.start for event in self.events], beat + 1e-6) - 1)]

    def events_in(self, start: float, end: float) -> list[ChordEvent]:
        """Events that begin from ``start`` to before ``end``, in beats."""
        return [event for event in self.events if start - 1e-6 <= event.start < end - 1e-6]


def draw_grid(rng: np.random.Generator, seconds: float) -> Grid:
    """Draw metre, tempo, its drift, swing, and where in the recording the music begins and ends.

    Args:
        rng: Source of randomness.
        seconds: Length of the recording.
    """
    metre = str(rng.choice(list(METRES), p=[0.74, 0.13, 0.13]))
    tempo = float(np.exp(rng.uniform(*np.log(TEMPO_RANGES[metre]))))
    lead_in = rng.uniform(0.05, 2.0)
    count = int(np.ceil(seconds * tempo / 60 * 1.1)) + 16  # enough beats for any drift of the tempo
    # A slow wave of at most 1.5 % and a random walk, as players without a metronome have.
    wave = rng.uniform(0.0, 0.015) * np.sin(2 * np.pi * (np.arange(count) / rng.uniform(24, 96) + rng.uniform()))
    walk = np.cumsum(rng.normal(0.0, 0.0015, count))
    # (b - 1,), in seconds
    periods = 60.0 / tempo * (1.0 + wave + walk - walk.mean())
    times = lead_in + np.concatenate([[0.0], np.cumsum(periods)])
    swing = float(rng.uniform(0.58, 0.67)) if METRES[metre][1] == 4 and rng.random() < 0.25 else 0.5
    # Half of the recordings end in the middle of a song, as excerpts do; in the others the music ends before.
    music_end = seconds
    if rng.random() < 0.5:
        bars = times[:: METRES[metre][0]]
        music_end = float(max(bars[1], bars[bars <= seconds - rng.uniform(0.3, 2.0)][-1]))
    return Grid(metre, tempo, swing, times, min(music_end, seconds))


def draw_plan(rng: np.random.Generator, key: Key, seconds: float) -> Plan:
    """Draw the form of a song.

    Args:
        rng: Source of randomness.
        key: Its key.
        seconds: Length of the recording.
    """
    grid = draw_grid(rng, seconds)
    style = HarmonicStyle.draw(rng)
    total = float(np.searchsorted(grid.times, grid.music_end, side="left"))
    themes = {letter: draw_theme(rng, key, grid, style) for letter in "ABC"}
    # In some songs all sections from the fourth on are a step higher.
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
    events = _laid_out(played, total)
    # Anticipations: some chords begin a subdivision early, and are annotated where they sound.
    probability = float(rng.choice([0.0, 0.0, 0.25, 0.6]))
    starts = [event.start for event in events] + [events[-1].end]
    for number in range(1, len(events)):
        if events[number].end - events[number].start >= 1 and rng.random() < probability:
            starts[number] -= grid.offbeat
    events = [ChordEvent(starts[i], starts[i + 1], event.chord) for i, event in enumerate(events)]
    return Plan(key, grid, sections, _with_break(rng, events, sections, grid))


def draw_theme(rng: np.random.Generator, key: Key, grid: Grid, style: HarmonicStyle) -> list[tuple[float, Chord]]:
    """Draw the chords of a section, with lengths in beats: a progression, repeated to at least four bars."""
    bars_each = float(rng.choice([0.5, 1.0, 2.0], p=[0.3, 0.52, 0.18]))
    beats_each = bars_each * grid.beats_per_bar
    # Half a bar of three beats is no whole number of beats.
    if not beats_each.is_integer():
        beats_each = float(grid.beats_per_bar)
    plain = progression(rng, key)
    while len(plain) * beats_each < 4 * grid.beats_per_bar:
        plain = plain * 2
    return embellished(rng, plain, beats_each, key, style)


def _laid_out(played: list[tuple[float, Chord]], total: float) -> list[ChordEvent]:
    """Chords with lengths as events: equal neighbours are joined, and the last ends where the music does."""
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


def _with_break(
    rng: np.random.Generator, events: list[ChordEvent], sections: list[Section], grid: Grid
) -> list[ChordEvent]:
    """In some songs remove the chords of the last bar of one section: only drums play there, or no player."""
    if rng.random() >= 0.3 or len(sections) < 2:
        return events
    end = sections[int(rng.integers(len(sections) - 1))].end
    start = end - grid.beats_per_bar
    result: list[ChordEvent] = []
    for event in events:
        # An anticipated chord after the break begins at the barline after all, so that the break lasts a whole bar.
        pieces = [(event.start, min(event.end, start)), (max(event.start, end), event.end)]
        result += [ChordEvent(left, right, event.chord) for left, right in pieces if right - left > 1e-6]
    index = sum(event.start < start for event in result)
    return [*result[:index], ChordEvent(start, end, None), *result[index:]]
