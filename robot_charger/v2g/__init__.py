"""Vehicle-to-grid communication: SLAC (ISO 15118-3), SECC (DIN 70121, ISO 15118-2 and -20) and EXI."""
