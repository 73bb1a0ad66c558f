"""Training of a bundle's parts on a snapshot, without Spark: `allmrec.training.pipeline` has their order."""
