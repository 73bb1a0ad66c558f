"""The parts that steps share: run, record, inputs, workers and bundles."""
