"""What training, testing, prediction and export share: recipes, flags, the device, the console."""
