"""A row of an inspection, made by hand."""


def told(task, readout, layer, scores, kind="pretrained", seed=0, **more):
    """A row of an inspection; ``scores`` are means, None where undefined."""
    cells = {
        n: {"mean": v, "ci95": [None if v is None else v - 0.02, None if v is None else v + 0.02], "n": 9}
        for n, v in scores.items()
    }
    backbone = {"path": kind, "digest": f"{kind}-{seed}", "kind": kind, "preset": "vit1d_mini"}
    if kind == "flux":
        backbone["kind"] = "classical"
    split = {"name": "test", "digest": "d", "expected": 9, "scored": 9}
    row = {"schema": 1, "backbone": backbone, "task": task, "dataset": "pop909", "split": split, "readout": readout}
    row |= {"layer": layer, "seed": seed, "selected": True, "selection": None, "scores": cells, "details": {}}
    return row | {"decoder": {"name": "none"}, "task_settings": {}} | more
