#!/usr/bin/env bash
# The demo, and its rows kept here: ten to fifteen minutes on two cores.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
musictf demo
for task in tagging chord beat; do
  python "$here/../keep.py" "runs/demo/probe/$task" "$here/$task"
done
mkdir -p "$here/figures"
cp runs/demo/figures/*.png runs/demo/pretrain/figures/*.png "$here/figures/"
cp runs/demo/pretrain/metrics.csv "$here/"
