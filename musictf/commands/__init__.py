"""The commands: one module for each verb, with its help and the Python function of the same name.

Importing this package, or one of its modules, imports neither torch nor Hydra, so that help is printed at once.
"""

VERBS = {
    "demo": "the complete workflow on synthetic music: pretrain, probe three tasks, tables and figures",
    "pretrain": "raw audio -> backbone.safetensors",
    "probe": "backbone + task + corpus -> scores beside their baselines",
    "inspect": "analysis of a backbone without a probe: attention and onsets, self-similarity, token maps",
    "report": "rows of many runs -> one comparison; for a sweep, which jobs are missing",
    "data": "check or prepare a corpus; pack it for fast reading; show or prune the feature store",
}
