"""What training in several processes adds: `torchrun --nproc-per-node 2 -m mtlkit train run.toml`.

Each process computes its slice of a batch. Losses are means over the labels of all of them, and gradients are sums over
them, so that balancers, clipping and the optimiser do in each process what they would do in one with the whole batch.
"""
