"""The built-in balancers, one module each: how the tasks' losses become gradients.

A balancer is a factory that takes `(tasks, *, options)` and gives an object with

    backward(losses, backward)      # {task: weighted loss}, and what back-propagates one scalar

which leaves the gradients in the parameters. A task without a label in the batch is not among the losses.
"""
