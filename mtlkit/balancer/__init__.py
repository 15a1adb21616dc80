"""The built-in balancers, one module each: how the tasks' losses become gradients (see `mtlkit.balancing`)."""
