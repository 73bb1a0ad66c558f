"""Rows that are finished before their table is: pieces below a folder.

Readers of tables ignore the folder, which is deleted once its rows are in their table. A piece is a folder of
Parquet files. Spark writes its marker `_SUCCESS` last, so that a piece without the marker is incomplete.
"""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from allmrec.spark import filesystem
from allmrec.spark.literal_paths import read_parquet


def staging_of_date(root: str, run_date: date) -> str:
    """Return the folder with everything that is staged for a run date."""
    return f"{root}/_staging/{run_date}"


class Staging:
    """The pieces below the folder `uri`. Rows have a column `chunk` (int), the unit of work.

    If two runs finish the same chunk, its rows are read from one of them.
    """

    def __init__(self, spark: SparkSession, uri: str, schema: T.StructType) -> None:
        self.spark = spark
        self.uri = uri
        self.schema = T.StructType([*schema.fields, T.StructField("chunk", T.IntegerType())])

    def add(self, rows: DataFrame, piece: str) -> None:
        """Write the rows of finished chunks as a uniquely named piece."""
        rows.select(*self.schema.fieldNames()).write.mode("errorifexists").parquet(f"{self.uri}/{piece}")

    def chunks(self) -> set[int]:
        """Return the finished chunks."""
        return {row[0] for row in self._all().select("chunk").distinct().collect()}

    def rows(self) -> DataFrame:
        """Return the rows of all finished chunks, without the column `chunk`."""
        rows = self._all()
        first = rows.groupBy("chunk").agg(F.min("_piece").alias("_piece"))
        return rows.join(first, ["chunk", "_piece"], "left_semi").drop("chunk", "_piece")

    def delete(self) -> None:
        """Delete the folder with all that is below it."""
        filesystem.delete(self.spark, self.uri)

    def _all(self) -> DataFrame:
        """Return the rows of complete pieces, with the piece in `_piece`."""
        folders = [f"{self.uri}/{piece}" for piece in filesystem.list_folders(self.spark, self.uri)]
        whole = [folder for folder in folders if filesystem.exists(self.spark, f"{folder}/_SUCCESS")]
        if not whole:
            return self.spark.createDataFrame([], self.schema).withColumn("_piece", F.lit(""))
        piece = F.element_at(F.split("_metadata.file_path", "/"), -2)
        return read_parquet(self.spark, *whole, schema=self.schema).withColumn("_piece", piece)
