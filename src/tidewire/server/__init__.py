"""One socket's life, and the URLs."""
