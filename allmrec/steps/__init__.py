"""The steps of the job, one file each; a step reads top to bottom: inputs, work, outcome."""
