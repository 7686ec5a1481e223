"""What Keras and flax write: axes are (height, width, in, out) there."""
