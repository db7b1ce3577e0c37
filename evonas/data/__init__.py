"""Data sets and their splits: the search sees train and val, and never test."""
