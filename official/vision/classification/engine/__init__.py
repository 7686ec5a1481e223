"""How a network is trained, tested and asked."""
