"""The charging station's side of OCPP: who may charge, how much, and the record of it."""
