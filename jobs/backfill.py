r"""`allmrec backfill` as a Spark job.

spark-submit --properties-file conf/spark-defaults.conf jobs/backfill.py \
    --config conf/demo.yaml --from 2026-05-29 --to 2026-05-31
"""

from allmrec.cli import main

if __name__ == "__main__":
    main("backfill")
