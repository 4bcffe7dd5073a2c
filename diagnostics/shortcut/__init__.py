"""Planted cues: who follows them (measures), how that is recorded, whether they can be read (probe)."""
