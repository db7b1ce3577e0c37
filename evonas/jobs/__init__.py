"""The jobs behind the commands: search, full training, estimate, ranking, and their helpers."""
