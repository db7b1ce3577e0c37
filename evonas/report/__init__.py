"""Reports on runs: comparisons."""
