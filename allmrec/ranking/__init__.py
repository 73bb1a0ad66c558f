"""Ordering candidate lists: NumPy in, scores out. Knows neither bundle nor models nor Spark."""
