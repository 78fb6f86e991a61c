"""Running a whole station as processes of one machine: the demo, the rehearsal, the books."""
