"""The simulated rack: EK3 modules, the DC network of every output, its measuring boards and meters."""
