#!/usr/bin/env bash
# Starts a Spark standalone cluster on this machine, from pyspark's own JARs: a master and two workers, all on 127.0.0.1.
# Returns when both workers are registered (at most 60 seconds), else stops what it started and says why.
#   WORKERS=2 WORKER_CORES=1 WORKER_MEMORY=2g PORT=7077 UI_PORT=8080 PYTHON=.venv/bin/python deploy/standalone/start.sh
# Logs, pid files and the workers' folders: deploy/standalone/run. Stop with deploy/standalone/stop.sh.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
run=${RUN_FOLDER:-$here/run}
workers=${WORKERS:-2} cores=${WORKER_CORES:-1} memory=${WORKER_MEMORY:-2g} port=${PORT:-7077} ui_port=${UI_PORT:-8080}
python=${PYTHON:-$root/.venv/bin/python}

if [ ! -x "$python" ]; then
    echo "$python not found: run make install, or name a python with pyspark by PYTHON=…" >&2
    exit 1
fi
if ls "$run"/*.pid >/dev/null 2>&1; then
    echo "a cluster is there already ($run/*.pid): stop it with deploy/standalone/stop.sh" >&2
    exit 1
fi
# A master whose port is taken would quietly move to the next one, where no worker looks for it.
if ! "$python" -c 'import socket, sys; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("127.0.0.1", int(sys.argv[1])))' "$port" 2>/dev/null; then
    echo "port $port of 127.0.0.1 is taken: name another by PORT=…" >&2
    exit 1
fi

SPARK_HOME=$("$python" -c 'import pyspark, pathlib; print(pathlib.Path(pyspark.__file__).parent)')
export SPARK_HOME
PATH=$(dirname "$python"):$PATH        # a job that names no python gets `python3` from the workers' PATH
export PATH
export SPARK_LOCAL_IP=127.0.0.1
export SPARK_NO_DAEMONIZE=1
if [ -z "${JAVA_HOME:-}" ] && ! command -v java >/dev/null && [ -x "$root/.venv/java/bin/java" ]; then
    export JAVA_HOME=$root/.venv/java
fi
mkdir -p "$run"

start() { # start NAME CLASS OPTION…: in the background, with a log and a pid file
    local name=$1
    shift
    nohup "$SPARK_HOME/bin/spark-class" "$@" >"$run/$name.log" 2>&1 </dev/null &
    echo $! >"$run/$name.pid"
}

start master org.apache.spark.deploy.master.Master --host 127.0.0.1 --port "$port" --webui-port "$ui_port"
for number in $(seq 1 "$workers"); do
    start "worker-$number" org.apache.spark.deploy.worker.Worker --host 127.0.0.1 --cores "$cores" --memory "$memory" \
        --webui-port 0 --work-dir "$run/work-$number" "spark://127.0.0.1:$port"
done

for _ in $(seq 1 60); do
    registered=$(grep -c "Registering worker" "$run/master.log" || true)
    if [ "$registered" -ge "$workers" ]; then
        echo "master spark://127.0.0.1:$port with $registered workers of $cores core(s) and $memory; stop: deploy/standalone/stop.sh"
        exit 0
    fi
    for pid in "$run"/*.pid; do
        if ! kill -0 "$(cat "$pid")" 2>/dev/null; then
            name=$(basename "$pid" .pid)
            echo "$name ended (port $port taken?); its log $run/$name.log ends with:" >&2
            tail -n 5 "$run/$name.log" >&2
            "$here/stop.sh"
            exit 1
        fi
    done
    sleep 1
done
echo "only $registered of $workers workers registered within 60 seconds; see $run/*.log" >&2
"$here/stop.sh"
exit 1
