"""spark-submit --properties-file conf/spark-defaults.conf jobs/import_amazon.py …: `allmrec import amazon` as a Spark job."""

from allmrec.cli import main

if __name__ == "__main__":
    main("import", "amazon")
