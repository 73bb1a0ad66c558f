#!/usr/bin/env bash
# Entry point of the image: an argument TODAY becomes a run date (UTC), so that a schedule can name one; then Spark's own entry point.
# The date is that of the schedule, also for a retry after midnight: the Spark operator names a run after the moment of its schedule
# (allmrec-nightly-1780365600123456789, in Unix time), and ALLMREC_RUN is that name. Without such a name it is today's date.
set -euo pipefail
today=$(date -u +%F)
if [[ ${ALLMREC_RUN:-} =~ -([0-9]{10})[0-9]*$ ]]; then
    today=$(date -u -d "@${BASH_REMATCH[1]}" +%F)
fi
given=("$@")
for index in "${!given[@]}"; do
    if [ "${given[$index]}" = TODAY ]; then
        given[index]=$today
    fi
done
exec "${SPARK_ENTRYPOINT:-/opt/entrypoint.sh}" "${given[@]}"
