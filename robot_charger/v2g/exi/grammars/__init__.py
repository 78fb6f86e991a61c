"""Grammar tables, one module per schema set; written by :mod:`robot_charger.v2g.exi.compiler`."""
