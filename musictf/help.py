"""What ``--help`` says. Nothing heavy is imported: help answers at once."""

from __future__ import annotations

from musictf.config import groups

OVERVIEW = """\
musictf: contrastive pretraining of light music transformers, and linear probes of what emerges in them

usage: musictf VERB [key=value ...]

  demo       the whole loop on built-in synthetic music: pretrain, probe three tasks, tables and pictures
  pretrain   raw audio -> backbone.safetensors
  probe      backbone + task + corpus -> scores beside their floors
  report     rows of many runs -> one comparison
  data       check: decode every file of a corpus and list what is bad

examples:
  musictf demo
  musictf pretrain dataset=folder dataset.root=~/music max_steps=2000
  musictf probe backbone=runs/demo/pretrain task=chord
  musictf report runs

musictf VERB --help says more about each. Keys are Hydra overrides; -m before them sweeps over comma lists; a value
with commas, blanks or = needs quotes of its own: "dataset.root='/my music, old'".
"""

_DEMO = """\
usage: musictf demo [key=value ...]

Makes a synthetic corpus, pretrains vit1d_mini on it, probes tagging, chords and beats on every layer and readout beside
random weights, the log-mel and the majority answer, and draws the results. An interrupted demo goes on where it was.

keys (default):
  output_dir=runs/demo   pretrain_tracks=640   num_tracks=200 (of them, probed)   seconds=24   max_steps=160
  batch_size=128   seed=0
  tasks=[tagging,chord,beat]   wandb.mode=auto   overwrite=false

examples:
  musictf demo
  musictf demo output_dir=/tmp/demo pretrain_tracks=40 num_tracks=40 max_steps=20
"""

_PRETRAIN = """\
usage: musictf pretrain [-m] [key=value ...]

Two excerpts of each track, NT-Xent on their class tokens, nothing on the sequence tokens. Writes backbone.safetensors,
metrics.csv and checkpoints/ to output_dir. Ctrl-C stops after the step; the same command with the same output_dir
goes on. batch_size counts pairs over all ranks.

choices:
{choices}

keys (default):
  max_steps=1000   batch_size=128   seed=0   splits=[train]   num_workers=1   output_dir=runs/pretrain/TIME
  objective.temperature=0.1   objective.projection=none|mlp   optim.learning_rate=1e-3   optim.warmup=0.05
  pairs.min_distance=5   pairs.max_distance=90   front_end.normalise=none|peak
  checkpoint.every=100   valid_every=100   log_every=10   resume=auto|never|PATH   overwrite=false
  trainer.accelerator  trainer.devices  trainer.strategy  trainer.precision  trainer.num_nodes   (Lightning's)
  wandb.mode=auto|online|offline|disabled   wandb.project=musictf

examples:
  musictf pretrain dataset=folder dataset.root=~/music max_steps=2000 output_dir=runs/mine
  musictf pretrain dataset=manifest 'dataset.root=[corpora/a,corpora/b]' model=vit1d_tiny trainer=gpu
  musictf pretrain trainer=ddp trainer.accelerator=cpu trainer.devices=2 max_steps=20
  musictf pretrain -m seed=0,1,2
"""

_PROBE = """\
usage: musictf probe backbone=PATH [-m] [key=value ...]

Affine heads on frozen features of every layer and readout; learning rate, thresholds and layer are chosen on
validation, the test split is read once; floors stand beside it. Writes results.jsonl, per_track.csv, estimates/,
figures/ and heads/ to output_dir.

choices:
{choices}

keys (default):
  backbone=FILE|RUN|random|mel   like=PATH (the shape of backbone=random)
  readouts=[class,sequence,average]   layers=all or [0,4]   seeds=[0]   floors=[random,mel,majority]
  probe.learning_rates=[0.001,0.003,0.01]   probe.steps=600   probe.batch_size=1024   probe.weight_decay=0.01
  features.excerpt_hop=63 (tokens)   features.precision=float16|float32
  allow_missing=false   overwrite=false   output_dir=runs/probe/TIME   wandb.mode=auto

examples:
  musictf probe backbone=runs/demo/pretrain task=chord
  musictf probe backbone=runs/mine task=beat dataset=manifest dataset.root=corpora/a
  musictf probe backbone=runs/mine task=tagging 'layers=[0,4]' 'readouts=[sequence,average]' 'seeds=[0,1,2]'
  musictf probe -m backbone=runs/mine task=tagging,chord,beat
"""

_DATA = """\
usage: musictf data check [key=value ...]

Decodes every file of a corpus, reads every annotation, and lists what is bad and why. Exit status 2 if anything is.

choices:
{choices}

examples:
  musictf data check dataset=folder dataset.root=~/music
  musictf data check dataset=manifest dataset.root=corpora/a
"""

_TEXTS = {
    "demo": (_DEMO, ()),
    "pretrain": (_PRETRAIN, ("dataset", "model", "objective", "trainer", "experiment")),
    "probe": (_PROBE, ("task", "dataset", "model", "trainer")),
    "data": (_DATA, ("dataset",)),
}


def verb_help(verb: str) -> str:
    """The help of one verb, with the choices that ``conf/`` offers now."""
    text, shown = _TEXTS[verb]
    known = groups()
    choices = "\n".join(f"  {group}={'|'.join(known[group])}" for group in shown if group in known)
    return text.replace("{choices}", choices)
