"""EVSE side of CHAdeMO: frames, hard wires and the sequence between them."""
