"""A-LLMRec as a nightly batch recommender on Spark and Delta."""

import os

# Read by torch's OpenMP when it is loaded. Its threads would spin while they wait for each other, which takes
# the cores from Spark and from a night beside.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
