"""spark-submit --properties-file conf/spark-defaults.conf jobs/train.py --config conf/demo.yaml …: `allmrec train` as a Spark job."""

from allmrec.cli import main

if __name__ == "__main__":
    main("train")
