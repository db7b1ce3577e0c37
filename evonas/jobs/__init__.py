"""Whatever holds a folder and runs: a search, a full training, an estimate, a ranking."""
