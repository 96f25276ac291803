"""From a mix YAML to a proven dataset: resolve, convert, select, write, lock."""
