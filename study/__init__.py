"""Studies: a declared grid of runs, and what their recordings say together."""
