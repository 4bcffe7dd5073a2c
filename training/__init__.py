"""Training: one loop, one objective for every stage, and the files of a run."""
