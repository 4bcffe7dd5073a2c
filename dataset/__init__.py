"""Images: sources, views, cues and batches."""
