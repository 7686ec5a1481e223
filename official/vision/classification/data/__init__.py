"""What a network eats: image folders, transforms, samplers and the loader."""
