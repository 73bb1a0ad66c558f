"""Training: torch only; reads a snapshot by its path."""
