#!/usr/bin/env bash
# Runs the night of a date as Airflow does, by an Airflow with an environment and a database of its own:
#   deploy/airflow/check.sh CONFIG DATE        (CONFIG is an absolute path; some 200 MB are installed the first time)
# Ends with the task's state; a night that fails ends with an exit code other than 0.
set -euo pipefail
config=$1 date=$2
root=$(cd "$(dirname "$0")/../.." && pwd)
run=${RUN_FOLDER:-$root/deploy/airflow/run}
python=${PYTHON:-$root/.venv/bin/python}

if [ ! -x "$run/env/bin/airflow" ]; then
    "$python" -m venv "$run/env"
    "$run/env/bin/pip" install --quiet "apache-airflow==3.*"
    # Without pyspark, which the provider would bring: spark-submit is that of allmrec's environment.
    "$run/env/bin/pip" install --quiet --no-deps apache-airflow-providers-apache-spark apache-airflow-providers-common-compat
fi
export AIRFLOW_HOME=$run/home AIRFLOW__CORE__LOAD_EXAMPLES=False AIRFLOW__CORE__DAGS_FOLDER=$root/deploy/airflow
export AIRFLOW_CONN_SPARK_DEFAULT='{"conn_type": "spark", "host": "local[2]"}'
export ALLMREC_HOME=$root ALLMREC_CONFIG=$config PYSPARK_PYTHON=$python
PATH=$(dirname "$python"):$PATH
"$run/env/bin/airflow" db migrate >/dev/null
"$run/env/bin/airflow" dags reserialize >/dev/null
"$run/env/bin/airflow" dags test allmrec_nightly "${date}T02:00:00" 2>&1 | tee "$run/last.log"
grep -q "new_state=success" "$run/last.log"
