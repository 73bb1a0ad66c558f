"""spark-submit --properties-file conf/spark-defaults.conf jobs/backfill.py --config conf/demo.yaml …: `allmrec backfill` as a Spark job."""

from allmrec.cli import main

if __name__ == "__main__":
    main("backfill")
