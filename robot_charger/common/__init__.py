"""The few things that all nodes share: life cycle, parameters, faults, the desk's wires, CAN buses."""
