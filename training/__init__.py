"""Training: one loop (engine), one objective a phase, and the files a run leaves behind."""
