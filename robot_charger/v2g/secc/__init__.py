"""The charging side of V2G as tables: DIN 70121, ISO 15118-2 and -20. ``machine.py`` begins with the rules."""
