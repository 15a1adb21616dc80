"""From what a user has to batches: tensors, datasets, loaders, data of each task; and where a run is in them."""
