#!/usr/bin/env bash
# Stops what deploy/standalone/start.sh started: exactly the processes of its pid files, workers first. Logs stay.
set -euo pipefail
run=${RUN_FOLDER:-$(cd "$(dirname "$0")" && pwd)/run}

for file in "$run"/worker-*.pid "$run"/master.pid; do
    [ -e "$file" ] || continue
    pid=$(cat "$file")
    # A pid file may be older than the machine's last start: the number may be somebody else's by now.
    if ps -ww -o args= -p "$pid" 2>/dev/null | grep -q org.apache.spark.deploy; then
        kill "$pid"
        for _ in $(seq 1 50); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.2
        done
        if kill -0 "$pid" 2>/dev/null; then
            kill -9 "$pid"
        fi
        echo "stopped $(basename "$file" .pid) ($pid)"
    fi
    rm -f "$file"
done
