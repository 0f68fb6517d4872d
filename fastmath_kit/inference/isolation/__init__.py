"""What keeps the code of a model in: `inference.sandbox` is its door."""
