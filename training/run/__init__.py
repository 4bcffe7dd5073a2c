"""What a run keeps on disk: folders, locks, checkpoints, records."""
