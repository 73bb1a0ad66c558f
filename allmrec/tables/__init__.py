"""The Delta tables: their schemas, the Spark session, and the only code that reads or writes them."""
