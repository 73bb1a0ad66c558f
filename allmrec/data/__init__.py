"""Interactions and items: reading, validation, sequences, splits, snapshots. Needs Spark."""
