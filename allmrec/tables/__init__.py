"""The Delta tables: schemas, the Spark session, and all reading and writing."""
