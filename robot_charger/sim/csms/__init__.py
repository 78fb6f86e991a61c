"""A small CSMS for a desk: real OCPP over WebSocket, every message kept, faults on request."""

from robot_charger.sim.csms.books import books

__all__ = ["books"]
