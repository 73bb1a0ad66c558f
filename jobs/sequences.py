"""spark-submit --properties-file conf/spark-defaults.conf jobs/sequences.py --config conf/demo.yaml …: `allmrec sequences` as a Spark job."""

from allmrec.cli import main

if __name__ == "__main__":
    main("sequences")
