"""The tables of an inspection in Markdown: one section a part, each with what its numbers are and which baseline wins.

Conventions: ``.712 [.690 .733]`` is a mean over test tracks with its 95 % interval. What is chosen (layer, head,
threshold) is chosen on validation, for baselines as for the backbone. A baseline wins where its three decimals reach the
backbone's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from musictf.report.inspection_cells import ABSENT, cell, number, reaching, signed, table, verdict, who
from musictf.report.inspection_rows import (
    ATTENTION,
    BOUNDARY,
    ITSELF,
    LEAD,
    MAPS,
    POSITION,
    PROFILE,
    STIMULUS,
    Inspection,
)
from musictf.report.lines import Score, decimal
from musictf.results.names import ATTENTION_CURVES
from musictf.results.rows import Row

_TARGETS = {
    "onset": "Onsets",
    "librosa_onset": "Onsets as librosa hears them (a proxy: none are annotated)",
    "beat": "Beats",
    "downbeat": "Downbeats",
    "chord_change": "Chord changes",
    "downbeat_among_beats": "Downbeats among beats",
    "change_among_beats": "Beats on which the chord changes, among beats",
}
_VIEWS = {"chord_root": "Chord roots", "key": "Keys (by signature)", "beat_phase": "Beat phase"}


def sections(found: Inspection) -> list[str]:
    """All sections that the rows allow, each a piece of Markdown."""
    parts: list[Callable[[Inspection], list[str]]] = [_attention, _profile, _boundaries, _position, _stimuli, _maps]
    return [piece for part in parts for piece in part(found)]


def _attention(found: Inspection) -> list[str]:
    tasks = found.tasks(ATTENTION)
    if not tasks:
        return []
    about = (
        "AUC: how often a head's curve is higher at an event than where none is; .5 is no relation. The head of each "
        "curve was chosen on validation. *Above shifted* and *above shuffled*: minus what events moved round the "
        "track, or their distances in random order, give. F: of the curve's peaks; chance: shifted events. Layers "
        "count from 1 here, heads from 0. *Corrected p* is of the chosen head: how often, with shifted events, the "
        "best of all heads and curves does as well (with 100 draws, of the backbone, at least .010; with 20, of "
        "controls, .048). *Heads that follow*: of all heads of the curve, how many have p < `attention.alpha`, on "
        "test. Untrained heads may follow as well: what follows is not what was learnt."
    )
    pieces = ["## Attention and events", about]
    for task in tasks:
        pieces += [f"### {_TARGETS.get(task.removeprefix(ATTENTION), task)}", _attention_table(found, task)]
        pieces.append(_attention_verdict(found, task))
    return pieces


def _attention_table(found: Inspection, task: str) -> str:
    columns = ["system", "curve", "layer.head", "AUC [95 %]", "above shifted", "above shuffled", "F", "F above chance"]
    lines = []
    for system in found.systems(task):
        for curve in found.values("readout", task, system=system, selected=True):
            fields = {"system": system, "readout": curve, "selected": True}
            chosen = found.of(task, **fields)
            lines.append(
                [
                    who(found, task, system),
                    curve,
                    ", ".join(f"{row['layer']}.{row['head']}" for row in chosen)
                    if curve in ATTENTION_CURVES
                    else ABSENT,
                    cell(found.score("auc", task, **fields)),
                    number(found.score("auc_above_shifted", task, **fields), sign=True),
                    number(found.score("auc_above_shuffled", task, **fields), sign=True),
                    cell(found.score("f_measure", task, **fields)),
                    cell(found.score("f_measure_above_shifted", task, **fields), sign=True),
                    *_heads(chosen),
                ]
            )
    return table([*columns, "median AUC of heads", "corrected p", "heads that follow"], lines, words=3)


def _heads(chosen: Sequence[Row]) -> list[str]:
    """Median of all heads, corrected p-value, and how many heads follow; what a row does not know is absent."""
    medians = [row["details"]["median_auc_of_heads"] for row in chosen]
    details = chosen[0]["details"]
    median = decimal(sum(medians) / len(medians)) if details["heads"] > 1 else ABSENT
    if "p_corrected" not in details:
        return [median, ABSENT, ABSENT]
    return [median, decimal(details["p_corrected"]), f"{details['heads_that_follow']} of {details['heads']}"]


def _attention_verdict(found: Inspection, task: str) -> str:
    baselines = [name for name in found.systems(task) if name != LEAD]
    said = []
    for name, measure in (("auc", "AUC"), ("f_measure_above_shifted", "F above chance")):
        wins = []
        curves = found.values("readout", task, system=LEAD, selected=True)
        if all(found.score(name, task, system=LEAD, readout=curve, selected=True) is None for curve in curves):
            continue  # events among others have no peaks
        for curve in curves:
            own = found.score(name, task, system=LEAD, readout=curve, selected=True)
            readouts = {baseline: "flux" if baseline == "flux" else curve for baseline in baselines}
            scores = {f: found.score(name, task, system=f, readout=r, selected=True) for f, r in readouts.items()}
            if reached := reaching(own, scores):
                wins.append(f"{curve} {number(own)} ({', '.join(reached)})")
        said.append(verdict(measure, wins, baselines))
    details = found.of(task, system=LEAD, selected=True)[0]["details"]
    merged = f"{details['merged']} of {details['events']} events are merged: they share a token with an earlier one"
    return " ".join([*said, f"{merged}, which no curve over tokens can tell apart, and count once."])


def _profile(found: Inspection) -> list[str]:
    if not found.of(PROFILE):
        return []
    about = (
        "Rank correlation of a layer's self-similarity with that of a musical dimension, *above shifted*: minus what "
        "the dimension gives when it is moved round the track. In brackets: difference to random weights in the same "
        "layer. Bold: the layer that validation chose. Layer 0 is the projected input. Below the layers, baselines, each "
        "at its own chosen layer. A shift hardly changes the matrix of the bar in a steady metre: for it, the rows' "
        "`_above_shuffled` is the one to read."
    )
    second = "The same with linear centred kernel alignment (CKA), above shifted, in place of rank correlation."
    pieces = ["## Self-similarity of layers and musical dimensions", about]
    for name, measure, text in (
        ("rank_correlation_above_shifted", "rank correlation above shifted", ""),
        ("cka_above_shifted", "CKA above shifted", second),
    ):
        pieces += [text] if text else []
        pieces += [_profile_table(found, name), _profile_verdict(found, name, measure)]
    return pieces


def _profile_table(found: Inspection, name: str) -> str:
    dimensions = found.values("readout", PROFILE)
    lines = [
        [f"layer {layer}", *(_layer_cell(found, name, dimension, layer) for dimension in dimensions)]
        for layer in sorted(found.values("layer", PROFILE, system=LEAD))
    ]
    for system in found.systems(PROFILE):
        cells = [_chosen_cell(found, name, dimension, system) for dimension in dimensions]
        lines += [] if system == LEAD else [[who(found, PROFILE, system), *cells]]
    return table(["", *dimensions], lines)


def _layer_cell(found: Inspection, name: str, dimension: str, layer: int) -> str:
    fields = {"readout": dimension, "layer": layer}
    own = found.score(name, PROFILE, system=LEAD, **fields)
    random = found.score(name, PROFILE, system="random", **fields)
    text = number(own)
    if own is not None and found.of(PROFILE, system=LEAD, **fields)[0]["selected"]:
        text = f"**{text}**"
    return text if own is None or random is None else f"{text} ({signed(own.mean - random.mean)})"


def _chosen_cell(found: Inspection, name: str, dimension: str, system: str) -> str:
    if ITSELF.get(system) == dimension:
        return "itself"
    return number(found.score(name, PROFILE, system=system, readout=dimension, selected=True))


def _profile_verdict(found: Inspection, name: str, measure: str) -> str:
    baselines = [system for system in found.systems(PROFILE) if system != LEAD]
    wins = []
    for dimension in found.values("readout", PROFILE):
        rivals = [baseline for baseline in baselines if ITSELF.get(baseline) != dimension]
        own = found.score(name, PROFILE, system=LEAD, readout=dimension, selected=True)
        scores = {f: found.score(name, PROFILE, system=f, readout=dimension, selected=True) for f in rivals}
        if reached := reaching(own, scores):
            wins.append(f"{dimension} {number(own)} ({', '.join(reached)})")
    return verdict(measure, wins, baselines)


def _boundaries(found: Inspection) -> list[str]:
    if not found.of(BOUNDARY):
        return []
    about = (
        "F-measure of the peaks of a layer's novelty against annotated boundaries, within 0.5 s of chord changes and "
        "3 s of sections; layer and threshold chosen on validation. Chance: the peaks shifted round the track."
    )
    pieces = ["## Boundaries", about]
    for kind in found.values("readout", BOUNDARY):
        lines, scores = [], {}
        for system in found.systems(BOUNDARY):
            fields = {"system": system, "readout": kind, "selected": True}
            layers = ", ".join(str(row["layer"]) for row in found.of(BOUNDARY, **fields))
            above = scores[system] = found.score("f_measure_above_shifted", BOUNDARY, **fields)
            values = [found.score(name, BOUNDARY, **fields) for name in ("f_measure", "precision", "recall")]
            cells = [cell(values[0]), *map(number, values[1:]), cell(above, sign=True)]
            lines.append([who(found, BOUNDARY, system), layers, *cells])
        columns = ["system", "layer", "F [95 %]", "precision", "recall", "F above chance"]
        own = scores.pop(LEAD, None)
        wins = reaching(own, scores)
        said = verdict("F above chance", [f"{number(own)} ({', '.join(wins)})"] if wins else [], list(scores))
        pieces += [f"### {kind.replace('_', ' ').capitalize()}s", table(columns, lines), said]
    return pieces


def _position(found: Inspection) -> list[str]:
    if not found.of(POSITION):
        return []
    about = (
        "Share of the variance of tokens that their place in the excerpt explains, whatever sounds; in brackets that "
        "of random weights. 1 means that tokens tell nothing but where they stand."
    )
    inputs = found.values("readout", POSITION)
    lines = []
    for layer in sorted(found.values("layer", POSITION)):
        cells = []
        for name in inputs:
            own, random = (
                found.score("position_share", POSITION, system=system, readout=name, layer=layer)
                for system in (LEAD, "random")
            )
            cells.append(number(own) + ("" if random is None else f" ({number(random)})"))
        lines.append([f"layer {layer}", *cells])
    heads = ["", *(name.replace("_", " ") for name in inputs)]
    return ["## Position", about, table(heads, lines)]


def _stimuli(found: Inspection) -> list[str]:
    if not found.of(STIMULUS):
        return []
    about = (
        "AUC of attention on sounds whose onsets are known: the median head, and the highest, which is chosen on the "
        "very sounds it is told of and so flatters."
    )
    lines = []
    for sound in found.values("dataset", STIMULUS):
        for system in found.systems(STIMULUS):
            for curve in found.values("readout", STIMULUS, system=system, dataset=sound):
                fields = {"system": system, "readout": curve, "dataset": sound}
                heads = ", ".join(f"{r['layer']}.{r['head']}" for r in found.of(STIMULUS, **fields) if "head" in r)
                # The flux is one curve, without heads.
                names = ("median_auc_of_heads", "highest_auc_of_heads") if heads else ("auc", "auc")
                scores = [found.score(score, STIMULUS, **fields) for score in names]
                name = who(found, STIMULUS, system)
                lines.append([sound.removeprefix("stimulus:"), name, curve, heads, *map(cell, scores)])
    columns = ["sound", "system", "curve", "layer.head", "median AUC [95 %]", "highest AUC [95 %]"]
    return ["### Onsets of plain sounds", about, table(columns, lines, words=4)]


def _maps(found: Inspection) -> list[str]:
    if not found.of(MAPS):
        return []
    about = (
        "*Fifths* and *chromatic*: rank correlation of the distances between class centroids with steps round either "
        "circle; shuffled names stay below *chance* 95 times in 100. *LDA*: accuracy of linear discriminants, mean "
        "over classes. Fitted on validation tracks, told on test tracks, not on the flat pictures."
    )
    pieces = ["## Token maps", about]
    for view in found.values("readout", MAPS):
        lines = [line for system in found.systems(MAPS) for line in _map_lines(found, view, system)]
        details = found.of(MAPS, readout=view)[0]["details"]
        chance = (
            f"{details['tokens']} tokens in {details['classes']} classes; guessing has {decimal(details['chance'])}."
        )
        columns = ["system", "layer", "fifths [95 %]", "chromatic [95 %]", "chance", "LDA [95 %]"]
        heading = f"### {_VIEWS.get(view, view)}"
        if all(line[2] == ABSENT for line in lines):
            columns, lines = [*columns[:2], columns[5]], [[*line[:2], line[5]] for line in lines]
        pieces += [heading, table(columns, lines), f"{chance} {_map_verdict(found, view)}"]
    return pieces


def _map_lines(found: Inspection, view: str, system: str) -> list[list[str]]:
    lines = []
    for layer in sorted(found.values("layer", MAPS, system=system, readout=view)):
        fields = {"system": system, "readout": view, "layer": layer}
        fifths, chromatic, chance, lda = (
            found.score(name, MAPS, **fields) for name in ("fifths", "chromatic", "fifths_chance_high", "lda_accuracy")
        )
        cells = [cell(fifths), cell(chromatic), number(chance), cell(lda)]
        lines.append([who(found, MAPS, system), str(layer), *cells])
    return lines


def _map_verdict(found: Inspection, view: str) -> str:
    """Which baseline's best layer reaches the backbone's best layer: all are best on test, so none is favoured."""
    said = []
    for name, measure in (("fifths", "fifths"), ("lda_accuracy", "LDA accuracy")):
        best: dict[str, Score | None] = {}
        for system in found.systems(MAPS):
            layers = found.values("layer", MAPS, system=system, readout=view)
            scores = [found.score(name, MAPS, system=system, readout=view, layer=layer) for layer in layers]
            best[system] = max((s for s in scores if s is not None), key=lambda s: s.mean, default=None)
        own = best.pop(LEAD, None)
        if own is not None:
            wins = reaching(own, best)
            against = [f"{number(own)} ({', '.join(wins)}), best layer of each"] if wins else []
            said.append(verdict(measure, against, list(best)))
    return " ".join(said)
