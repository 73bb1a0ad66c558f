r"""`allmrec candidates` as a Spark job.

spark-submit --properties-file conf/spark-defaults.conf jobs/candidates.py \
    --config conf/demo.yaml --run-date 2026-06-01
"""

from allmrec.cli import main

if __name__ == "__main__":
    main("candidates")
