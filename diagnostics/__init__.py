"""Questions asked of trained models after training: is a difference real, and what is it made of."""
