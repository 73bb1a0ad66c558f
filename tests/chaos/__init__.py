"""Nights that are killed, doubled and starved, and what must be in the tables afterwards."""
