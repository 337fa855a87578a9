"""The tables of an inspection in Markdown: one section a part, each with an explanation and the baselines that win.

Conventions: ``.712 [.690 .733]`` is a mean over test tracks with its 95 % interval. Layers, heads and thresholds are
chosen on validation, for baselines as for the backbone. A baseline wins where it reaches the backbone's score at three
decimals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from musictf.reporting.inspection_cells import (
    baselines_reaching,
    cell,
    comparison_sentence,
    number,
    signed,
    system_label,
)
from musictf.reporting.inspection_reader import (
    ATTENTION,
    BACKBONE,
    BOUNDARY,
    DIMENSION_MADE_OF,
    MAPS,
    POSITION,
    PROFILE,
    STIMULUS,
    Inspection,
)
from musictf.reporting.table import ABSENT, Cell, Table, TableRow, markdown
from musictf.reporting.table_lines import Score, decimal
from musictf.results.names import ATTENTION_CURVES
from musictf.results.rows import Row

_TARGETS = {
    "onset": "Onsets",
    "librosa_onset": "Onsets detected by librosa (a proxy: none are annotated)",
    "beat": "Beats",
    "downbeat": "Downbeats",
    "chord_change": "Chord changes",
    "downbeat_among_beats": "Downbeats among beats",
    "change_among_beats": "Beats on which the chord changes, among beats",
}
_VIEWS = {"chord_root": "Chord roots", "key": "Keys (by signature)", "beat_phase": "Beat phase"}


def sections(inspection: Inspection) -> list[str]:
    """Pieces of Markdown of all sections that the rows allow."""
    parts: list[Callable[[Inspection], list[str]]] = [
        attention_section,
        profile_section,
        boundary_section,
        position_section,
        stimulus_section,
        token_map_section,
    ]
    return [piece for part in parts for piece in part(inspection)]


def attention_section(inspection: Inspection) -> list[str]:
    """Attention of the chosen heads at events: a table for each kind of event."""
    tasks = inspection.tasks(ATTENTION)
    if not tasks:
        return []
    about = (
        "AUC: how often a head's curve is higher at an event than elsewhere; .5 means no relation. The head of each "
        "curve was chosen on validation. *Above shifted* and *above shuffled*: minus the AUC of events that are "
        "shifted round the track, or whose distances are in random order. F: F-measure of the curve's peaks; chance: "
        "that of shifted events. Layers count from 1 here, heads from 0. *Corrected p* belongs to the chosen head: how "
        "often, with shifted events, the best of all heads and curves scores as high (with the backbone's 100 draws at "
        "least .010, with the controls' 20 draws .048). *Heads that follow*: heads of the curve with "
        "p < `attention.alpha` on test. Untrained heads may follow events as well: it is no proof of learning."
    )
    tables = [markdown(attention_table(inspection, task), 3) for task in tasks]
    return ["## Attention and events", about, *tables]


def attention_table(inspection: Inspection, task: str) -> Table:
    """The chosen head of each system and curve, for one kind of event."""
    columns = (
        *("system", "curve", "layer.head", "AUC [95 %]", "above shifted", "above shuffled", "F", "F above chance"),
        *("median AUC of heads", "corrected p", "heads that follow"),
    )
    rows: list[TableRow] = []
    for system in inspection.systems(task):
        for curve in inspection.values("readout", task, system=system, selected=True):
            fields = {"system": system, "readout": curve, "selected": True}
            chosen = inspection.of(task, **fields)
            heads = ", ".join(f"{row['layer']}.{row['head']}" for row in chosen if curve in ATTENTION_CURVES)
            above = [f"auc_above_{null}" for null in ("shifted", "shuffled")]
            rows.append(
                (
                    system_label(inspection, task, system),
                    curve,
                    heads or ABSENT,
                    cell(inspection.score("auc", task, **fields)),
                    *(number(inspection.score(name, task, **fields), sign=True) for name in above),
                    cell(inspection.score("f_measure", task, **fields)),
                    cell(inspection.score("f_measure_above_shifted", task, **fields), sign=True),
                    *_all_heads(chosen),
                )
            )
    title = _TARGETS.get(task.removeprefix(ATTENTION), task)
    return Table(title, columns, tuple(rows), 3, closing=_attention_comparison(inspection, task))


def _all_heads(chosen: Sequence[Row]) -> list[str]:
    """Median AUC of all heads, corrected p-value and number of heads that follow; a dash where not recorded."""
    medians = [row["details"]["median_auc_of_heads"] for row in chosen]
    details = chosen[0]["details"]
    median = decimal(sum(medians) / len(medians)) if details["heads"] > 1 else ABSENT
    if "p_corrected" not in details:
        return [median, ABSENT, ABSENT]
    return [median, decimal(details["p_corrected"]), f"{details['heads_that_follow']} of {details['heads']}"]


def _attention_comparison(inspection: Inspection, task: str) -> str:
    baselines = [name for name in inspection.systems(task) if name != BACKBONE]
    sentences = []
    for name, measure in (("auc", "AUC"), ("f_measure_above_shifted", "F above chance")):
        wins = []
        curves = inspection.values("readout", task, system=BACKBONE, selected=True)
        backbone_scores = {c: inspection.score(name, task, system=BACKBONE, readout=c, selected=True) for c in curves}
        if all(backbone is None for backbone in backbone_scores.values()):
            continue  # events among others have no peaks
        for curve, backbone in backbone_scores.items():
            # The flux is one curve, so it is a rival of every curve of the backbone.
            readouts = {baseline: "flux" if baseline == "flux" else curve for baseline in baselines}
            scores = {b: inspection.score(name, task, system=b, readout=r, selected=True) for b, r in readouts.items()}
            if reached := baselines_reaching(backbone, scores):
                wins.append(f"{curve} {number(backbone)} ({', '.join(reached)})")
        sentences.append(comparison_sentence(measure, wins, baselines))
    details = inspection.of(task, system=BACKBONE, selected=True)[0]["details"]
    merged = f"{details['merged']} of {details['events']} events are merged: they share a token with an earlier one"
    return " ".join([*sentences, f"{merged}, which no curve over tokens can tell apart, and count once."])


def profile_section(inspection: Inspection) -> list[str]:
    """Self-similarity of layers against musical dimensions, by rank correlation and by CKA."""
    if not inspection.of(PROFILE):
        return []
    about = (
        "Rank correlation of a layer's self-similarity with that of a musical dimension, *above shifted*: minus the "
        "correlation when the dimension is shifted round the track. In brackets: difference to random weights in the "
        "same layer. Bold: the layer that validation chose. Layer 0 is the projected input. Baselines stand below the "
        "layers, each at its own chosen layer. A shift hardly changes the matrix of the bar in a steady metre: read "
        "the rows' `_above_shuffled` there."
    )
    second = "The same with linear centred kernel alignment (CKA), above shifted, in place of rank correlation."
    rank = markdown(_profile_table(inspection, "rank_correlation_above_shifted", "rank correlation above shifted"), 3)
    cka = markdown(_profile_table(inspection, "cka_above_shifted", "CKA above shifted"), 3)
    return ["## Self-similarity of layers and musical dimensions", about, rank, second, cka]


def _profile_table(inspection: Inspection, name: str, measure: str) -> Table:
    """Layers of the backbone, then baselines, against dimensions.

    Args:
        inspection: The rows.
        name: Of the score.
        measure: Its name in the sentence about baselines.
    """
    dimensions = inspection.values("readout", PROFILE)
    baselines = [system for system in inspection.systems(PROFILE) if system != BACKBONE]
    rows: list[TableRow] = [
        (f"layer {layer}", *(_layer_cell(inspection, name, dimension, layer) for dimension in dimensions))
        for layer in sorted(inspection.values("layer", PROFILE, system=BACKBONE))
    ]
    scores = {
        (system, dimension): inspection.score(name, PROFILE, system=system, readout=dimension, selected=True)
        for system in (BACKBONE, *baselines)
        for dimension in dimensions
    }
    for system in baselines:
        cells = [
            "itself" if DIMENSION_MADE_OF.get(system) == dimension else number(scores[system, dimension])
            for dimension in dimensions
        ]
        rows.append((system_label(inspection, PROFILE, system), *cells))
    wins = []
    for dimension in dimensions:
        rivals = [system for system in baselines if DIMENSION_MADE_OF.get(system) != dimension]
        if reached := baselines_reaching(
            scores[BACKBONE, dimension], {system: scores[system, dimension] for system in rivals}
        ):
            wins.append(f"{dimension} {number(scores[BACKBONE, dimension])} ({', '.join(reached)})")
    return Table("", ("", *dimensions), tuple(rows), closing=comparison_sentence(measure, wins, baselines))


def _layer_cell(inspection: Inspection, name: str, dimension: str, layer: int) -> Cell:
    """A layer's score, bold where validation chose it, and its difference to random weights."""
    fields = {"readout": dimension, "layer": layer}
    backbone = inspection.score(name, PROFILE, system=BACKBONE, **fields)
    random = inspection.score(name, PROFILE, system="random", **fields)
    if backbone is None:
        return Cell(ABSENT)
    difference = "" if random is None else f"({signed(backbone.mean - random.mean)})"
    return Cell(number(backbone), difference, inspection.of(PROFILE, system=BACKBONE, **fields)[0]["selected"])


def boundary_section(inspection: Inspection) -> list[str]:
    """Peaks of novelty against annotated boundaries: a table for each kind of boundary."""
    if not inspection.of(BOUNDARY):
        return []
    about = (
        "F-measure of the peaks of a layer's novelty against annotated boundaries, within 0.5 s of chord changes and "
        "3 s of sections; layer and threshold chosen on validation. Chance: the peaks shifted round the track."
    )
    pieces = ["## Boundaries", about]
    for kind in inspection.values("readout", BOUNDARY):
        rows: list[TableRow] = []
        scores = {}
        for system in inspection.systems(BOUNDARY):
            fields = {"system": system, "readout": kind, "selected": True}
            layers = ", ".join(str(row["layer"]) for row in inspection.of(BOUNDARY, **fields))
            above = scores[system] = inspection.score("f_measure_above_shifted", BOUNDARY, **fields)
            f, *others = (inspection.score(name, BOUNDARY, **fields) for name in ("f_measure", "precision", "recall"))
            label = system_label(inspection, BOUNDARY, system)
            rows.append((label, layers, cell(f), *map(number, others), cell(above, sign=True)))
        columns = ("system", "layer", "F [95 %]", "precision", "recall", "F above chance")
        backbone = scores.pop(BACKBONE, None)
        wins = baselines_reaching(backbone, scores)
        closing = comparison_sentence(
            "F above chance", [f"{number(backbone)} ({', '.join(wins)})"] if wins else [], list(scores)
        )
        title = f"{kind.replace('_', ' ').capitalize()}s"
        pieces.append(markdown(Table(title, columns, tuple(rows), closing=closing), 3))
    return pieces


def position_section(inspection: Inspection) -> list[str]:
    """How much of the tokens their position explains, layer by layer."""
    if not inspection.of(POSITION):
        return []
    about = (
        "Share of the variance of tokens that their position in the excerpt explains, whatever the music; in brackets "
        "that of random weights. At 1, tokens carry nothing but their position."
    )
    inputs = inspection.values("readout", POSITION)
    rows: list[TableRow] = []
    for layer in sorted(inspection.values("layer", POSITION)):
        cells = []
        for name in inputs:
            backbone, random = (
                inspection.score("position_share", POSITION, system=system, readout=name, layer=layer)
                for system in (BACKBONE, "random")
            )
            cells.append(Cell(number(backbone), "" if random is None else f"({number(random)})"))
        rows.append((f"layer {layer}", *cells))
    columns = ("", *(name.replace("_", " ") for name in inputs))
    return ["## Position", about, markdown(Table("", columns, tuple(rows)), 2)]


def stimulus_section(inspection: Inspection) -> list[str]:
    """Attention at the onsets of synthetic sounds."""
    if not inspection.of(STIMULUS):
        return []
    about = (
        "AUC of attention on sounds whose onsets are known: the median head and the highest head. The highest is "
        "chosen on the same sounds that it is scored on, so its score is too high."
    )
    rows: list[TableRow] = []
    for sound in inspection.values("dataset", STIMULUS):
        for system in inspection.systems(STIMULUS):
            label = system_label(inspection, STIMULUS, system)
            for curve in inspection.values("readout", STIMULUS, system=system, dataset=sound):
                fields = {"system": system, "readout": curve, "dataset": sound}
                with_head = [row for row in inspection.of(STIMULUS, **fields) if "head" in row]
                heads = ", ".join(f"{row['layer']}.{row['head']}" for row in with_head)
                # The flux is one curve, without heads.
                names = ("median_auc_of_heads", "highest_auc_of_heads") if heads else ("auc", "auc")
                cells = [cell(inspection.score(name, STIMULUS, **fields)) for name in names]
                rows.append((sound.removeprefix("stimulus:"), label, curve, heads, *cells))
    columns = ("sound", "system", "curve", "layer.head", "median AUC [95 %]", "highest AUC [95 %]")
    return ["### Onsets of plain sounds", about, markdown(Table("", columns, tuple(rows), 4), 3)]


def token_map_section(inspection: Inspection) -> list[str]:
    """Order of class centroids among the tokens, and classes by linear discriminants."""
    if not inspection.of(MAPS):
        return []
    about = (
        "*Fifths* and *chromatic*: rank correlation of the distances between class centroids with steps round either "
        "circle; shuffled names stay below *chance* 95 times in 100. *LDA*: accuracy of linear discriminants, mean "
        "over classes. Fitted on validation tracks and scored on test tracks, on the tokens and not on the "
        "two-dimensional pictures."
    )
    tables = [markdown(token_map_table(inspection, view), 3) for view in inspection.values("readout", MAPS)]
    return ["## Token maps", about, *tables]


def token_map_table(inspection: Inspection, view: str) -> Table:
    """Each system and layer, for one way to name the tokens."""
    rows: list[TableRow] = []
    for system in inspection.systems(MAPS):
        for layer in sorted(inspection.values("layer", MAPS, system=system, readout=view)):
            fields = {"system": system, "readout": view, "layer": layer}
            fifths, chromatic, chance, lda = (
                inspection.score(name, MAPS, **fields)
                for name in ("fifths", "chromatic", "fifths_chance_high", "lda_accuracy")
            )
            label = system_label(inspection, MAPS, system)
            rows.append((label, str(layer), cell(fifths), cell(chromatic), number(chance), cell(lda)))
    columns: tuple[str, ...] = ("system", "layer", "fifths [95 %]", "chromatic [95 %]", "chance", "LDA [95 %]")
    if all(row[2] == Cell(ABSENT) for row in rows):  # only classes of pitch have a circle of fifths
        columns, rows = (*columns[:2], columns[5]), [(*row[:2], row[5]) for row in rows]
    details = inspection.of(MAPS, readout=view)[0]["details"]
    chance_text = f"{details['tokens']} tokens in {details['classes']} classes; guessing has"
    closing = f"{chance_text} {decimal(details['chance'])}. {_token_map_comparison(inspection, view)}"
    return Table(_VIEWS.get(view, view), columns, tuple(rows), closing=closing)


def _token_map_comparison(inspection: Inspection, view: str) -> str:
    """Which baseline's best layer reaches the backbone's best layer: both are best on test, so neither is favoured."""
    sentences = []
    for name, measure in (("fifths", "fifths"), ("lda_accuracy", "LDA accuracy")):
        best: dict[str, Score | None] = {}
        for system in inspection.systems(MAPS):
            layers = inspection.values("layer", MAPS, system=system, readout=view)
            scores = [inspection.score(name, MAPS, system=system, readout=view, layer=layer) for layer in layers]
            best[system] = max((s for s in scores if s is not None), key=lambda s: s.mean, default=None)
        backbone = best.pop(BACKBONE, None)
        if backbone is not None:
            wins = baselines_reaching(backbone, best)
            against = [f"{number(backbone)} ({', '.join(wins)}), best layer of each"] if wins else []
            sentences.append(comparison_sentence(measure, against, list(best)))
    return " ".join(sentences)
