"""The models: torch only, no Spark."""
