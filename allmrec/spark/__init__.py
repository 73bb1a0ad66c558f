"""Running Spark: Java, the session, files, logs, errors, chunks of rows."""
