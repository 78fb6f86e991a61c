"""The simulated vehicle of one EVSE: ``python -m robot_charger.sim.vehicle --evse N``. See car.Car."""
