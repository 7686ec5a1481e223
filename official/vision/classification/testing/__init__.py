"""Testing: what is counted over a data set, and how it is shown."""
