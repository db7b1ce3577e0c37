"""Data sets, and how they are split: the search is given train and val, and never test."""
