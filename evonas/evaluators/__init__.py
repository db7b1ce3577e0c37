"""What measures a candidate, and the wrappers that do it elsewhere."""
