r"""`allmrec import steam` as a Spark job.

spark-submit --properties-file conf/spark-defaults.conf jobs/import_steam.py \
    --reviews steam_reviews.json.gz --games steam_games.json.gz --set tables.root=steam_tables
"""

from allmrec.cli import main

if __name__ == "__main__":
    main("import", "steam")
