"""What an operator sees of a station: doctor, record, report, replay, watch. None of it is needed to charge."""

from robot_charger.operator.commands import commands

__all__ = ["commands"]
