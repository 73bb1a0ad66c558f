"""spark-submit --properties-file conf/spark-defaults.conf jobs/score.py --config conf/demo.yaml …: `allmrec score` as a Spark job."""

from allmrec.cli import main

if __name__ == "__main__":
    main("score")
