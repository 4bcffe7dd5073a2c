"""Figures: from the numbers of a report to pictures."""
