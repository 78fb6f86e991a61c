"""Power modules, contactors, insulation monitor and meter of one bank."""
