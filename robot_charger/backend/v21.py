"""OCPP 2.1: what it adds to 2.0.1 for this station, above all set-points for energy both ways."""

from __future__ import annotations

from robot_charger.backend.v2 import Version2


class Version21(Version2):
    version = "2.1"
    subprotocol = "ocpp2.1"
    token_length = 255
