"""From the bytes of an image file to pixels: what it is, how large it says it is, and decoding."""
