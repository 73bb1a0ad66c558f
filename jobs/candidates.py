"""spark-submit --properties-file conf/spark-defaults.conf jobs/candidates.py --config conf/demo.yaml …: `allmrec candidates` as a Spark job."""

from allmrec.cli import main

if __name__ == "__main__":
    main("candidates")
