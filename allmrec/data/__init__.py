"""Interactions and items: read, validated, made into sequences, splits and training snapshots. Spark only."""
