r"""`allmrec maintain` as a Spark job.

spark-submit --properties-file conf/spark-defaults.conf jobs/maintain.py --config conf/demo.yaml
"""

from allmrec.cli import main

if __name__ == "__main__":
    main("maintain")
