"""spark-submit --properties-file conf/spark-defaults.conf jobs/nightly.py --config conf/demo.yaml …: `allmrec nightly` as a Spark job."""

from allmrec.cli import main

if __name__ == "__main__":
    main("nightly")
