"""The fit of the orders: weights of retrieval, the blends, and the decision about the LLM."""
