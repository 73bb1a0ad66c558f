"""spark-submit --properties-file conf/spark-defaults.conf jobs/import_files.py …: `allmrec import files` as a Spark job."""

from allmrec.cli import main

if __name__ == "__main__":
    main("import", "files")
