"""What every step is given: session and tables, runs, inputs, workers, chunks, bundles."""
