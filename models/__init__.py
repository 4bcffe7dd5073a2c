"""Networks: how they are made (zoo), read inside (taps), kept in files (checkpoint), and run (machine)."""
