"""Airflow DAGs: the night every day, training every week, as spark-submit of the jobs.

For Airflow 2.7 or newer and 3, with apache-airflow-providers-apache-spark; the connection `spark_default`
names the cluster, ALLMREC_HOME a checkout that every worker sees, ALLMREC_CONFIG the configuration.
`deploy/airflow/check.sh` runs the night's task by an Airflow of its own.
"""

from __future__ import annotations

import os
import re
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow import DAG
from airflow.exceptions import AirflowException, AirflowFailException
from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator

HOME = os.environ.get("ALLMREC_HOME", "/opt/allmrec")
CONFIG = os.environ.get("ALLMREC_CONFIG", f"{HOME}/conf/nightly_gpu.yaml")
# A run at 02:00 on the 24th has run date the 24th: it reads every event before that day's midnight (UTC).
# One that is triggered by hand has no interval in Airflow 3, and the date of its start.
RUN_DATE = "{{ data_interval_end | default(dag_run.run_after) | ds }}"
RETRIES = {"retries": 2, "retry_delay": timedelta(minutes=10)}


class Job(SparkSubmitOperator):
    """The spark-submit of a job, which is not tried again where a person has to look first.

    With the driver on this machine (client mode) spark-submit ends with the job's own exit code: 2, a mistake
    in what was asked, or 3, data that somebody must look at (jobs/README.md).
    """

    def execute(self, context: Any) -> None:
        """Run it; raises AirflowFailException where a retry is of no use, else AirflowException."""
        try:
            super().execute(context)
        except AirflowException as error:
            if re.search(r"Error code is: [23]\b", str(error)):
                raise AirflowFailException(str(error)) from error
            raise


def job(task_id: str, file: str, hours: int) -> Job:
    """Return the spark-submit of a job.

    A repeat is safe: a step whose output for the same inputs is there is skipped.
    """
    return Job(
        task_id=task_id,
        name=f"allmrec-{task_id}",
        application=f"{HOME}/jobs/{file}",
        application_args=["--config", CONFIG, "--run-date", RUN_DATE],
        properties_file=f"{HOME}/conf/spark-defaults.conf",
        execution_timeout=timedelta(hours=hours),
        **RETRIES,
    )


with DAG(
    dag_id="allmrec_nightly",
    description="sequences, candidates, scores, e-mail and feed tables of one night",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    schedule="0 2 * * *",
    catchup=False,  # past dates are a backfill: jobs/backfill.py --from … --to …
    max_active_runs=1,
):
    job("nightly", "nightly.py", hours=5)

with DAG(
    dag_id="allmrec_training",
    description="a new model bundle; the next night picks it up by its training date",
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    schedule="0 20 * * 0",
    catchup=False,
    max_active_runs=1,
):
    job("train", "train.py", hours=12)
