"""The connection robot: plugs the vehicle in, knows when it has not, and takes the plug out again."""
