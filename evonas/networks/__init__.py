"""From genomes to networks: one builder a space, written once with `pick`."""
