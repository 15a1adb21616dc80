"""The built-in heads, one module each. Use them by name in a spec, or as `mtlkit.heads[name]`.

A head is any `nn.Module` whose factory takes `(input_shape, outputs, *, options)`: features in, a task's output out.
One whose forward has a `mask` gets that of padded sequences.

One that is made of linear layers and activations may say so, with `layers`, the modules in turn, and
`before_layers(x, mask)`, what the first of them reads of the features; `forward` is then the layers applied to that.
Many such heads on the same features are trained as one (see `mtlkit.grouping`). See docs/extending.md.
"""
