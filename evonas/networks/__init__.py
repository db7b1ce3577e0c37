"""From genomes to networks: one builder per space, written once with `pick`."""
