#!/usr/bin/env bash
# Tells Spark which GPUs this worker has (spark.worker.resource.gpu.discoveryScript, spark.executor.resource.gpu.discoveryScript):
# one line of JSON, {"name": "gpu", "addresses": ["0", "1"]}; no address where there is no GPU.
set -euo pipefail
addresses=""
if command -v nvidia-smi >/dev/null; then
    # A command that fails (a driver that does not answer) means no usable GPU here, not a dead worker.
    addresses=$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | sed -e 's/[^0-9]//g' -e '/^$/d' -e 's/.*/"&"/' | paste -sd, -) || addresses=""
fi
echo "{\"name\": \"gpu\", \"addresses\": [${addresses}]}"
