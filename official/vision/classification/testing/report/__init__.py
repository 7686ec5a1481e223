"""A test as a page to look at and a table to compute with."""
