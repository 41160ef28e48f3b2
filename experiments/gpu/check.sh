#!/usr/bin/env bash
# Everything that only a GPU can confirm, in under 20 minutes on one; writes a table in Markdown.
#     bash experiments/gpu/check.sh [--rehearse] [FOLDER]
# Any step that fails ends the script with its error. --rehearse tries every kind of step with tiny
# sizes, on a CPU too, where its figures mean nothing.
set -euo pipefail

rehearse=0
if [ "${1:-}" = "--rehearse" ]; then rehearse=1; shift; fi
folder=${1:-runs/gpu-check}
python=${PYTHON:-python}
root=$(cd "$(dirname "$0")/../.." && pwd)

platform() { "$python" -P -m platform_core.cli "$@"; }

if [ $rehearse = 0 ] && ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "error: torch finds no GPU; --rehearse tries the script without one" >&2
    exit 2
fi
if [ -e "$folder" ]; then
    echo "error: $folder exists; name another folder" >&2
    exit 2
fi
mkdir -p "$folder"
for _ in $(seq 400); do echo "we the people of these united states in order to form a more perfect union"; done \
    > "$folder/text.txt"

network=(--backbone=dit --backbone.size=small)
text=(--data.corpus=text --data.path="$folder/text.txt" --data.length=1024)
steps=40 batch=16 curve=200 bench=(--network small --states 50257 --batch 8 --length 1024)
precision=bf16 kernels=(sdpa)
only=() families=(duo mdlm sedd ar d3pm) compiled=(false true) formats=(fp32 bf16)
if [ $rehearse = 1 ]; then
    network=(--backbone=dit --backbone.hidden_size=16 --backbone.num_blocks=1 --backbone.num_heads=2)
    text=(--data.corpus=text --data.path="$folder/text.txt" --data.length=16)
    families=(ar) compiled=(false) formats=(bf16) # one of each kind
    steps=4 batch=4 curve=6 bench=(--network tiny --width 16 --states 50 --batch 1 --length 8)
    only=(--only ar)
fi
if "$python" -c 'import flash_attn' 2>/dev/null; then kernels+=(flash); fi

# Trains NAME with further options; its lines of metrics.jsonl are then in $folder/NAME.
train() {
    local name=$1
    shift
    platform run "${network[@]}" "${text[@]}" --track.to=none --sample.number=0 \
        --train.batch_size=$batch --train.warmup_steps=2 --train.log_every=2 \
        --train.evaluate_every=0 --evaluate.sequences=2 --evaluate.split=train \
        --train.learning_rate=3e-4 --output="$folder/$name" "$@" >"$folder/$name.log" 2>&1 ||
        { cat "$folder/$name.log" >&2; return 1; }
}

table="$folder/table.md"
row() { "$python" "$root/experiments/gpu/row.py" "$folder/$1" "$2" >>"$table"; }

"$python" -c 'import torch; print("Device:", torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU, a rehearsal", "torch", torch.__version__)' >"$table"
if [ $rehearse = 0 ]; then (cd "$root" && "$python" -m pytest -q -m gpu) >"$folder/tests.log" 2>&1 ||
    [ $? = 5 ] || { cat "$folder/tests.log" >&2; exit 1; }; tail -1 "$folder/tests.log" >>"$table"; fi

printf '\n```\n' >>"$table"
"$python" "$root/experiments/gpu/proofs.py" >>"$table" 2>"$folder/proofs.log" ||
    { cat "$table" "$folder/proofs.log" >&2; exit 1; }
printf '```\n' >>"$table"

printf '\n| run | tokens/s | MFU | memory, GB | last loss |\n|---|---|---|---|---|\n' >>"$table"
for family in "${families[@]}"; do
    for compile in "${compiled[@]}"; do
        train "$family-$compile" --process=$family --train.steps=$steps \
            --train.compile=$compile --train.precision=$precision
        row "$family-$compile" "$family, compile $compile"
    done
done
for kernel in "${kernels[@]}"; do
    train "$kernel" --process=mdlm --train.steps=$steps --backbone.attention=$kernel --train.precision=$precision
    row "$kernel" "attention $kernel"
done
for format in "${formats[@]}"; do
    train "$format" --process=mdlm --train.steps=$curve --train.precision=$format
    row "$format" "$format, $curve steps"
done
train whole --process=mdlm --train.steps=$steps --train.precision=$precision
train parts --process=mdlm --train.steps=$((steps / 2)) --train.precision=$precision
platform run --resume "$folder/parts" --train.steps=$steps >"$folder/resumed.log" 2>&1 ||
    { cat "$folder/resumed.log" >&2; exit 1; }
row whole "undisturbed"
row parts "resumed half-way; the loss must be that of the row above"

for what in families counts; do
    printf '\n```\n' >>"$table"
    platform bench --what $what "${bench[@]}" "${only[@]}" >>"$table"
    printf '```\n' >>"$table"
done
printf '\n| samples | tokens/s |\n|---|---|\n' >>"$table"
"$python" "$root/experiments/gpu/sampling.py" "${bench[@]}" >>"$table"
echo "written: $table"
