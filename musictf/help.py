"""What ``--help`` says. Nothing heavy is imported: help answers at once."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from musictf.config import groups

OVERVIEW = """\
musictf: contrastive pretraining of light music transformers, and linear probes of what emerges in them

usage: musictf VERB [key=value ...]

  demo       the whole loop on built-in synthetic music: pretrain, probe three tasks, tables and pictures
  pretrain   raw audio -> backbone.safetensors
  probe      backbone + task + corpus -> scores beside their baselines
  inspect    what emerges in a backbone without a probe: attention and onsets, self-similarity, token maps
  report     rows of many runs -> one comparison; of a sweep, which cells are missing
  data       check, prepare: is a corpus whole; pack: decode it once for all; features: what the feature store holds

examples:
  musictf demo
  musictf pretrain dataset=folder dataset.root=~/music max_steps=2000
  musictf probe backbone=runs/demo/pretrain task=chord
  musictf inspect backbone=runs/demo/pretrain
  musictf report runs

musictf VERB --help says more about each. Keys are Hydra overrides; -m before them sweeps over comma lists; a value
with commas, blanks or = needs quotes of its own: "dataset.root='/my music, old'".
"""

_SWEEP = """\
sweeps (-m):
  a job of every combination of the comma lists, each in a folder of its own below output_dir (default
  runs/{verb}/sweep-TIME); sweep.json there lists them. The same command with the same output_dir goes on: finished
  jobs are left alone, unfinished ones continue, what longer lists add is new. musictf report FOLDER says which jobs
  are missing, and --missing how to fill them.
  dry_run=true                 only print the jobs and, for SLURM, the script that sbatch would get
  hydra/launcher=slurm         send them to SLURM (pip install musictf[slurm]), start it where sbatch is; devices and
                               nodes follow trainer.*; hydra.launcher.timeout_min=60 (minutes)
                               hydra.launcher.partition=  hydra.launcher.cpus_per_task=  hydra.launcher.mem_gb=
  Here the jobs run one after another and are single processes.
"""

_DEMO = """\
usage: musictf demo [key=value ...]

Makes a synthetic corpus, pretrains vit1d_mini on it, probes tagging, chords and beats on every layer and readout beside
random weights, the log-mel and the majority answer, inspects the backbone, and draws the results. An interrupted demo
goes on where it was.

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
metrics.csv and checkpoints/ to output_dir. Ctrl-C, SIGTERM and SIGUSR1 stop after the step (exit status 1); the same
command with the same output_dir goes on, after a kill too. batch_size counts pairs over all ranks. dry_run=true only
prints what the run would take, from twenty of its steps.

choices:
{choices}

keys (default):
  max_steps=1000   batch_size=128   seed=0   splits=[train]   num_workers=1   output_dir=runs/pretrain/TIME
  objective.temperature=0.1   objective.projection=none|mlp   optim.learning_rate=1e-3   optim.warmup=0.05
  front_end.normalise=none|peak   valid_every=100   log_every=10   resume=auto|never|PATH   overwrite=false
  identities=full|files|none (the list of what was heard, for the leakage report)
  micro_batch=null (pairs embedded at a time; same gradient)   activation_checkpointing=false   compile=false
  token_dropping=0 (share of the frames that training does not look at)
  pairs.min_distance=5   pairs.max_distance=90 (seconds)   pairs.excerpts_per_track=1 (of a track, each other's negatives)
  pairs.min_gap_seconds=4 (seconds between places)   pairs.batch_by=group (field that a batch shares)   pairs.weights=[..] (of corpora)
  augment.gain_db=0   augment.polarity|noise|low_pass|high_pass|reverb|pitch=0 (chances; ranges: augment.noise_db, ..)
  online_probe=synthetic|manifest   online_probe.root=   online_probe.every=500
  checkpoint.every=100   checkpoint.keep_every=0   checkpoint.requeue=false (SLURM, after SIGTERM too)
  guard.budget=0 (steps that may go wrong and are left out)   guard.spike=0 (a loss that many times the usual is wrong)
  trainer.accelerator  trainer.devices  trainer.strategy  trainer.precision  trainer.num_nodes   (Lightning's)
  trainer.timeout_s=300 (how long processes wait for one that hangs)
  wandb.mode=auto|online|offline|disabled   wandb.project=musictf

{sweeps}
examples:
  musictf pretrain dataset=folder dataset.root=~/music max_steps=2000 output_dir=runs/mine
  musictf pretrain dataset=manifest 'dataset.root=[corpora/a,corpora/b]' model=vit1d_tiny trainer=gpu
  musictf pretrain dataset=packed dataset.root=packs/mine batch_size=2048 micro_batch=64 dry_run=true
  musictf pretrain trainer=ddp trainer.accelerator=cpu trainer.devices=2 max_steps=20
  musictf pretrain -m seed=0,1,2 output_dir=runs/three dry_run=true
  musictf pretrain -m seed=0,1,2 output_dir=runs/three
  musictf pretrain -m model=vit1d_tiny,vit1d_small trainer=gpu hydra/launcher=slurm hydra.launcher.timeout_min=720
"""

_PROBE = """\
usage: musictf probe backbone=PATH [-m] [key=value ...]

A whole study of one task: affine heads on frozen features of every layer, readout, learning rate and seed, trained in
one pass; weights, learning rate, thresholds and layer are chosen on validation, the test split is read once; baselines
and ceiling stand beside it. Writes results.jsonl, per_track.csv, estimates/, figures/ and heads/ to output_dir. A run
that is killed goes on where it was: the same command with the same output_dir.

choices:
{choices}

keys (default):
  backbone=FILE|RUN|random|mel|mfcc|chroma   like=PATH (the shape of backbone=random)
  readouts=[class,sequence,average]   layers=all or [0,4]   seeds=[0,1,2]
  baselines=[random,mel,mfcc,chroma,classical,majority,oracle]
  probe.learning_rates=[3e-4,1e-3,3e-3,1e-2,3e-2]   probe.weight_decays=[1e-4] (an L2 penalty)   probe.steps=600
  probe.batch_size=1024   probe.valid_every=60   probe.patience=3
  features.excerpt_hop=63 (tokens)   features.precision=float16|float32   features.memory_gib=8 (then from disk)
  leakage=fail|warn|off   robustness.perturbations=[] (any of gain,noise,mp3,ogg,pitch,stretch)
  robustness.amounts.pitch=[-2,-1,1,2]   allow_missing=false   overwrite=false   output_dir=runs/probe/TIME
  wandb.mode=auto

{sweeps}
examples:
  musictf probe backbone=runs/demo/pretrain task=chord
  musictf probe backbone=runs/mine task=beat dataset=manifest dataset.root=corpora/a
  musictf probe backbone=runs/mine task=tagging 'layers=[0,4]' 'readouts=[sequence,average]' 'seeds=[0]'
  musictf probe backbone=runs/mine task=key dataset=giantsteps_key dataset.root=~/data/giantsteps
  musictf probe backbone=runs/mine task=chord 'robustness.perturbations=[noise,pitch]'
  musictf probe -m backbone=runs/mine,random task=tagging,chord,beat output_dir=runs/table dry_run=true
  musictf probe -m backbone=runs/mine,random task=tagging,chord,beat output_dir=runs/table
  musictf probe -m backbone=runs/a,runs/b 'seeds=[0,1],[2,3]' trainer=gpu hydra/launcher=slurm
"""

_INSPECT = """\
usage: musictf inspect backbone=PATH [-m] [key=value ...]

What emerges in a backbone, without any probe, as numbers with controls that could refute them. Heads, layers and
thresholds are chosen on valid, scores are told on test; train is not touched. Writes inspection.md (the tables),
results.jsonl, per_track.csv, figures/, tracks/ (curves and matrices with their times) and listen/ (pages with sound)
to output_dir. A run that was stopped goes on with the part it was in.

parts:
  attention    curves of every head against onsets (librosa's where none are annotated), beats, downbeats and chord
               changes; nulls: events shifted and shuffled, random weights, silence, noise, spectral flux
  similarity   self-similarity of layers against harmony, timbre, rhythm, loudness, bar, chords and sections; novelty
               against chord changes and sections
  position     what positions and plain input explain: music, noise, silence, clicks, a held chord, a scale
  maps         where roots, keys and beats lie among the tokens; is there a circle of fifths

choices:
{choices}

keys (default):
  backbone=FILE|RUN|random   like=PATH (the shape of backbone=random)   parts=[attention,similarity,position,maps]
  controls=[random,silence,noise]   seeds=[0,1,2] (of random weights)   listen=1 (pages, of the first test tracks)
  estimates=[] (probe runs whose estimates the pages show)
  attention.targets=auto or any of [onset,librosa_onset,beat,downbeat,chord_change,downbeat_among_beats,
  change_among_beats]   attention.draws=100   attention.alpha=0.05   similarity.bin_seconds=0.25
  similarity.max_bins=768   similarity.gap_seconds=4   similarity.draws=10   token_maps.tokens_a_track=200
  features.excerpt_hop=63 (tokens)   features.batch_size=16
  allow_missing=false   overwrite=false   output_dir=runs/inspect/TIME   wandb.mode=auto

{sweeps}
examples:
  musictf inspect backbone=runs/demo/pretrain
  musictf inspect backbone=runs/mine dataset=manifest dataset.root=corpora/a listen=3
  musictf inspect backbone=runs/mine 'estimates=[runs/chords,runs/beats]' listen=2
  musictf inspect backbone=runs/mine 'parts=[attention]' 'attention.targets=[beat,downbeat]'
  musictf inspect -m backbone=runs/a,runs/b output_dir=runs/both
"""

_DATA = """\
usage: musictf data check [key=value ...]
       musictf data prepare [CORPUS [ROOT]] [key=value ...]
       musictf data pack [key=value ...] output=FOLDER
       musictf data features list|verify|prune

check decodes every file of a corpus and reads every annotation. It counts tracks and annotations split by split, lists
what is bad and why, and remarks on recordings that stand there twice, groups in several splits, near silence and very
short files. Exit status 2 if anything is bad, 0 if a list of it was written.
  output=FILE     write the bad tracks, with the reasons, as dataset.exclusions=FILE reads them
  task=NAME       also say how many tracks of each split this task can use

prepare holds a local copy of a published corpus against what its authors publish: counts, what is missing, what does
not open, and which commands come next. It never downloads. Without ROOT it says where the corpus is obtained and which
layout is expected; without CORPUS it lists all corpora. Exit status 2 if the copy is not there or not whole.
  full=true       decode every file instead of reading its header
  KEY=VALUE       keys of dataset.*: variant=..., split=...

pack decodes a corpus once, to 16-bit samples at one rate in a few large files, with levels, labels, annotations and the
list of what is in it: dataset=packed then reads random excerpts without decoding, and without the original audio. A
pack that was killed goes on where it was; what does not decode is listed, and then nothing is made.
  output=FOLDER   where (overwrite=true replaces a pack)
  sample_rate=HZ  default: that of the front end (front_end.sample_rate)
  splits=[...]    default: all   shard_gb=1: largest size of a shard
  format=litdata  for object storage (pip install musictf[shards]): copy FOLDER/chunks there, keep the rest of FOLDER,
                  and add dataset.url=s3://bucket/folder
  root=FOLDER verify=true   compare all samples of a pack with their digests

features shows what the feature store holds; verify reads it all and checks its sums; prune makes room, after which one
of NAME (as list shows it), unused_days=N, stale, broken, all. What is wanted again is computed again.

choices:
{choices}

examples:
  musictf data check dataset=folder dataset.root=~/music
  musictf data check dataset=manifest dataset.root=corpora/a task=chord output=bad.txt
  musictf probe backbone=runs/mine task=chord dataset=manifest dataset.root=corpora/a dataset.exclusions=bad.txt
  musictf data prepare
  musictf data prepare gtzan
  musictf data prepare gtzan ~/data/gtzan full=true
  musictf data pack dataset=manifest dataset.root=corpora/a output=packs/a
  musictf pretrain dataset=packed dataset.root=packs/a
  musictf data pack root=packs/a verify=true
  musictf data features prune unused_days=30
"""

_TEXTS = {
    "demo": (_DEMO, ()),
    "pretrain": (_PRETRAIN, ("dataset", "model", "objective", "augment", "online_probe", "trainer", "experiment")),
    "probe": (_PROBE, ("task", "dataset", "model", "trainer")),
    "inspect": (_INSPECT, ("dataset", "model", "trainer")),
    "data": (_DATA, ("dataset", "task")),
}


def verb_help(verb: str) -> str:
    """The help of one verb, with the choices of its groups."""
    text, shown = _TEXTS[verb]
    known = groups()
    if verb == "data":
        lines = [f"  {group}={name:<15} {line}" for group in shown for name, line in known[group].items()]
    else:
        lines = [_wrapped(group, known[group]) for group in shown if group in known]
    choices = "\n".join(lines)
    return text.replace("{choices}", choices).replace("{sweeps}\n", _SWEEP.replace("{verb}", verb) + "\n")


def _wrapped(group: str, names: Iterable[str]) -> str:
    """``  group=a|b|c`` on as many lines as it takes."""
    text = " ".join(f"{name}|" for name in names).rstrip("|")
    indent = " " * (len(group) + 3)
    lines = textwrap.wrap(text, 100, initial_indent=f"  {group}=", subsequent_indent=indent)
    return "\n".join(line[: len(indent)] + line[len(indent) :].replace(" ", "") for line in lines)
