"""What a desk lacks: vehicle, modules, safety controller, PLC modem, arm and back end, each a process of its own."""
