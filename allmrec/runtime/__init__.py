"""What every step is given: the run and its tables, its inputs, its record, its workers and its bundles."""
