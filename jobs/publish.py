"""spark-submit --properties-file conf/spark-defaults.conf jobs/publish.py --config conf/demo.yaml …: `allmrec publish` as a Spark job."""

from allmrec.cli import main

if __name__ == "__main__":
    main("publish")
