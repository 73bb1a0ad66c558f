"""spark-submit --properties-file conf/spark-defaults.conf jobs/evaluate.py --config conf/demo.yaml …: `allmrec evaluate` as a Spark job."""

from allmrec.cli import main

if __name__ == "__main__":
    main("evaluate")
