"""The built-in heads, one module each. Use them by name in a spec, or as `mtlkit.heads[name]`.

A head is any `nn.Module` whose factory takes `(input_shape, outputs, *, options)`: features in, a task's output out.
One whose forward has a `mask` gets that of padded sequences. See docs/extending.md.
"""
