"""The networks: pure modules, no files and no network."""
