"""The evaluators, which measure candidates, and the wrappers that run them elsewhere."""
