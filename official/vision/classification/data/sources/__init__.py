"""The forms in which data sets are published, each read as it comes."""
