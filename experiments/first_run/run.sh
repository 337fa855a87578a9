#!/usr/bin/env bash
# The first run on real input: pretrain on recorded and rendered music, probe on rendered pop with known chords and beats.
# Usage: experiments/first_run/run.sh CORPORA   (the folder that holds pop909_rendered, recorded, ...)
set -euo pipefail
corpora=${1:?give the folder that holds the corpora}
here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-runs/first_run}

musictf pretrain dataset=manifest model=vit1d_mini trainer=cpu \
  "dataset.root=[$corpora/pop909_rendered,$corpora/recorded,$corpora/recorded_piano,$corpora/asap_rendered,$corpora/recorded_bands]" \
  max_steps=900 batch_size=128 valid_every=50 output_dir="$out/pretrain"
for task in tagging chord beat; do
  musictf probe backbone="$out/pretrain" task=$task dataset=manifest dataset.root="$corpora/pop909_rendered" \
    trainer=cpu output_dir="$out/$task"
  mkdir -p "$here/$task"
  cp "$out/$task"/{results.jsonl,per_track.csv,config.yaml} "$here/$task/"
  cp -r "$out/$task/figures" "$here/$task/"
done
cp "$out/pretrain"/{metrics.csv,config.yaml} "$here/"
cp -r "$out/pretrain/figures" "$here/"
musictf report "$here" --format md --output "$here/results.md"
