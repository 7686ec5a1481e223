"""What is done to training images: each file is one transform, and the keys of a recipe it has."""
