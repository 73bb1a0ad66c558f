#!/usr/bin/env bash
# Entry point of the image: an argument TODAY becomes today's date (UTC), so that a schedule can name a run date; then Spark's own entry point.
set -euo pipefail
given=("$@")
for index in "${!given[@]}"; do
    if [ "${given[$index]}" = TODAY ]; then
        given[index]=$(date -u +%F)
    fi
done
exec "${SPARK_ENTRYPOINT:-/opt/entrypoint.sh}" "${given[@]}"
