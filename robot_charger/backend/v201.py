"""OCPP 2.0.1."""

from __future__ import annotations

from robot_charger.backend.v2 import Version2


class Version201(Version2):
    version = "2.0.1"
    subprotocol = "ocpp2.0.1"
    token_length = 36
    token_types = ("Central", "eMAID", "ISO14443", "ISO15693", "KeyCode", "Local", "MacAddress", "NoAuthorization")
