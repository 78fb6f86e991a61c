"""GB/T 27930 (2015, and vehicles of 2011): the charger's side over CAN, and its hard wires."""
