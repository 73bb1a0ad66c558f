"""Leave-one-out evaluation: the protocol, the scenarios and the report. Pandas, no Spark."""
