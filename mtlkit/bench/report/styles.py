"""Which variant has which colour in all charts, as classes of CSS.

    styles_of(found)      # {"cnn/hard/sum": "s0", "cnn/single": "b0", ...}

Of many variants those of the best quality have colours, and the others are grey: nobody tells forty colours apart.
"""

from __future__ import annotations

from mtlkit.bench.findings import Findings

COLOURED, DASHED = 6, 3
"""At most so many variants have colours, and so many baselines dashes."""
QUIET = "q"


def styles_of(found: Findings) -> dict[str, str]:
    """The CSS class of each variant: "s0" to "s5" of those that have colours, "b0" to "b2" of baselines, else "q"."""
    compared = [row for row in found.rows if not row.variant.is_baseline]
    shown = {row.variant.name for row in found.ranked(compared)[:COLOURED]}
    coloured = [row.variant.name for row in compared if row.variant.name in shown]
    dashed = [row.variant.name for row in found.rows if row.variant.is_baseline][:DASHED]
    styles = dict.fromkeys((row.variant.name for row in found.rows), QUIET)
    styles |= {name: f"s{index}" for index, name in enumerate(coloured)}
    return styles | {name: f"b{index}" for index, name in enumerate(dashed)}
