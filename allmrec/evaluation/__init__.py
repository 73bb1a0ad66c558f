"""Leave-one-out evaluation: protocols, scenarios, report. Pandas, no Spark."""
