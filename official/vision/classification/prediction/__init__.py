"""Prediction: from pictures to answers, in lines, files and heat maps."""
