#!/bin/sh
# Checks learners, packing and output head on the GPU of this machine, in a few minutes. It needs torch, transformers, peft and
# pydantic; neither Ray nor vLLM, and no network: weights are drawn here. PYTHON names the interpreter, OUT where figures go.
#
#   benchmarks/gpu_check.sh             everything
#   benchmarks/gpu_check.sh parity      one part: parity, head, shared, learners
#   benchmarks/gpu_check.sh --small     toy sizes, on a CPU as well: does the check itself work?
set -eu
cd "$(dirname "$0")/.."
export TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
export PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
exec "${PYTHON:-python3}" -m benchmarks.gpu_check --out "${OUT:-runs/gpu-check}" "$@"
