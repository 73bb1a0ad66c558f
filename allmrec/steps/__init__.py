"""The steps of the job, one file each: tables → data → scoring → tables. The only place where Spark and torch meet."""
