"""Rows that are finished before their table is: pieces below a folder, each whole or not there.

No reader looks there, and the folder goes once its rows are in their table. A piece is a folder of Parquet
files; Spark's marker `_SUCCESS` is written last, so that a piece without it is one that was killed.
"""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from allmrec.tables import filesystem
from allmrec.tables.literal_paths import read_parquet


def staging_of_date(root: str, run_date: date) -> str:
    """Return the folder below `tables.root` that holds all that is staged for a run date."""
    return f"{root}/_staging/{run_date}"


class Staging:
    """The pieces below the folder `uri`; every row has a column `chunk` (int), the unit of work.

    Two runs may finish the same chunk; its rows are then read from one of them.
    """

    def __init__(self, spark: SparkSession, uri: str, schema: T.StructType) -> None:
        self.spark, self.uri = spark, uri
        self.schema = T.StructType([*schema.fields, T.StructField("chunk", T.IntegerType())])

    def add(self, rows: DataFrame, piece: str) -> None:
        """Write the rows of finished chunks as one piece; `piece` is a name that no other piece has."""
        rows.select(*self.schema.fieldNames()).write.mode("errorifexists").parquet(f"{self.uri}/{piece}")

    def chunks(self) -> set[int]:
        """Return the chunks that are finished."""
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
        """Return the rows of every whole piece, with the piece's name in `_piece`."""
        folders = [f"{self.uri}/{piece}" for piece in filesystem.list_folders(self.spark, self.uri)]
        whole = [folder for folder in folders if filesystem.exists(self.spark, f"{folder}/_SUCCESS")]
        if not whole:
            return self.spark.createDataFrame([], self.schema).withColumn("_piece", F.lit(""))
        piece = F.element_at(F.split("_metadata.file_path", "/"), -2)
        return read_parquet(self.spark, *whole, schema=self.schema).withColumn("_piece", piece)
