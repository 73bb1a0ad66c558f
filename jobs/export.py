r"""`allmrec export` as a Spark job.

spark-submit --properties-file conf/spark-defaults.conf jobs/export.py \
    email --config conf/demo.yaml --out emails.csv
"""

from allmrec.cli import main

if __name__ == "__main__":
    main("export")
