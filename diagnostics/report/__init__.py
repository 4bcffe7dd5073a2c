"""The page, the sentence it opens with, and what the terminal shows."""
