"""A trained network taken away: files for deployment, checked against the model, with a card and a script."""
