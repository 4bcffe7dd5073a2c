"""The speed of a command, and the time that is left."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Pace:
    """Images that a command has shown in training, and those of later jobs."""

    waiting: int = 0
    images: int = 0
    seconds: float = 0.0

    def add(self, images: int, seconds: float) -> None:
        """Count an epoch of so many images."""
        self.images += images
        self.seconds += seconds

    def predict_left(self, images: int, seconds: float) -> float:
        """Return the seconds left: this job by its last epoch, later ones by all epochs.

        Args:
            images: left in this job.
            seconds: of one image in its last epoch.
        """
        return images * seconds + self.waiting * self.seconds / max(self.images, 1)


def show_duration(seconds: float) -> str:
    """Return a duration in a readable unit."""
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if minutes < 2:
        return f"{seconds:.0f} s"
    if hours < 2:
        return f"{minutes:.0f} min"
    return f"{hours:.1f} h" if days < 2 else f"{days:,.1f} days"
