"""Options: the YAML files, the schema of every field, and the reader."""
