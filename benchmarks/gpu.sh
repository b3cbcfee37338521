#!/usr/bin/env bash
# All that an accelerator is asked, in one go of nine minutes at most, its start included; needs torch and numpy.
#
#   OUT=FOLDER bash benchmarks/gpu.sh [--text FOLDER]
#   bash benchmarks/gpu.sh --output FOLDER --rehearse      # the same on a processor, tiny, in less than a minute
#
# What is found stands in FOLDER/accelerator.json, which is written again after every part: what ends early leaves the
# parts before. LIMIT, in seconds, is the end whatever happens; 540 unless it is set.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH="$here/../src${PYTHONPATH:+:$PYTHONPATH}"
exec timeout "${LIMIT:-540}" "${PYTHON:-python3}" "$here/accelerator.py" --began "$(date +%s)" --output "${OUT:-runs/accelerator}" "$@"
