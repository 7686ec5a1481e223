"""Commands beside train, test and predict; the files of tools/ call those of the same name."""
