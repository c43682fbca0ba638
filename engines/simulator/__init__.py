"""A simulated engine with a GPU's clock and faults."""
