r"""`allmrec import movielens` as a Spark job.

spark-submit --properties-file conf/spark-defaults.conf jobs/import_movielens.py \
    --folder ml-100k --set tables.root=movielens_tables
"""

from allmrec.cli import main

if __name__ == "__main__":
    main("import", "movielens")
