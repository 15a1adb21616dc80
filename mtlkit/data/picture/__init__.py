"""Image files: finding them, reading them, their labels, and what a run keeps of them."""
