r"""`allmrec train` as a Spark job.

spark-submit --properties-file conf/spark-defaults.conf jobs/train.py \
    --config conf/demo.yaml --run-date 2026-05-29
"""

from allmrec.cli import main

if __name__ == "__main__":
    main("train")
