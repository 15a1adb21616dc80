"""The built-in encoders, one module each. Use them by name in a spec, or as `mtlkit.encoders[name]`.

An encoder is any `nn.Module` whose factory takes `(input_shape, *, options)`. Optional: `output_shape`, `stages`,
`forward_masked(x, mask)` for padded sequences, `input_dtype`. See docs/extending.md.
"""
