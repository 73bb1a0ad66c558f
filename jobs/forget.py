r"""`allmrec forget` as a Spark job.

spark-submit --properties-file conf/spark-defaults.conf jobs/forget.py user-00012 --config conf/demo.yaml
"""

from allmrec.cli import main

if __name__ == "__main__":
    main("forget")
