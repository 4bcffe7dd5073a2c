"""Planted cues: recording, measures of following them, and probes."""
