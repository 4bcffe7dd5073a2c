"""Networks: built (zoo), read inside (taps), saved (checkpoint), run (machine)."""
