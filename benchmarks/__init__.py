"""Each speed claim as a script that prints a ratio against a named reference measured in the same run."""
