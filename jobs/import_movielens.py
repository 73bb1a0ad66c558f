"""spark-submit --properties-file conf/spark-defaults.conf jobs/import_movielens.py …: `allmrec import movielens` as a Spark job."""

from allmrec.cli import main

if __name__ == "__main__":
    main("import", "movielens")
