#!/usr/bin/env bash
# Which contrast grows what? Short runs of the mini preset, watched by the online probe on rendered pop.
# Usage: experiments/contrast/run.sh CORPORA   (the folder that holds pop909_rendered); about ten minutes a run on one core
set -euo pipefail
corpora=${1:?give the folder that holds the corpora}
here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-runs/contrast}

[ -d "$out/pack" ] || musictf data pack dataset=manifest dataset.root="$corpora/pop909_rendered" output="$out/pack"
pop="dataset=packed dataset.root=$out/pack"
songs="dataset=synthetic dataset.num_tracks=640 dataset.seconds=24 dataset.reinstrument=true"
moment="pairs.min_distance=0 pairs.max_distance=0 pairs.excerpts_per_track=4"

run() {
  name=$1
  shift
  musictf pretrain max_steps=300 batch_size=64 num_workers=0 valid_every=300 identities=files trainer=cpu \
    online_probe=manifest online_probe.root="$corpora/pop909_rendered" online_probe.every=100 \
    online_probe.num_tracks=120 online_probe.seconds=24 'online_probe.layers=[0,1,2,4]' \
    wandb.mode=disabled output_dir="$out/$name" "$@"
  cp "$out/$name/metrics.csv" "$here/$name.csv"
}

# shellcheck disable=SC2086 (lists of keys)
{
  run plain $pop
  run near_places $pop pairs.min_distance=0 pairs.max_distance=3 pairs.excerpts_per_track=4
  run same_moment_mild $pop $moment augment=mild augment.reverb=0.3
  run synthetic_reinstrumented $songs
  run synthetic_same_moment $songs $moment pairs.min_gap_seconds=2
}
python "$here/table.py"
