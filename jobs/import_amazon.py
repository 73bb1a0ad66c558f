r"""`allmrec import amazon` as a Spark job.

spark-submit --properties-file conf/spark-defaults.conf jobs/import_amazon.py \
    --reviews reviews_Beauty_5.json.gz --metadata meta_Beauty.json.gz --set tables.root=beauty_tables
"""

from allmrec.cli import main

if __name__ == "__main__":
    main("import", "amazon")
