"""A-LLMRec as a nightly batch recommender on Spark and Delta."""
