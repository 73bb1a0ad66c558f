r"""`allmrec import files` as a Spark job.

spark-submit --properties-file conf/spark-defaults.conf jobs/import_files.py \
    --interactions interactions.csv --items items.jsonl --users users.csv --set tables.root=tables
"""

from allmrec.cli import main

if __name__ == "__main__":
    main("import", "files")
