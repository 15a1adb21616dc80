"""What every part must do, as checks that built-ins and plugins pass alike.

    from mtlkit.testing import check_encoder

    def test_wavelet():
        check_encoder("wavelet", levels=2)                   # on all common kinds of input that it takes
        check_encoder("wavelet", input_shape=(20, 8))        # on this one

Each raises AssertionError, saying what does not hold.
"""

from __future__ import annotations

from mtlkit.testing.balancer import check_balancer
from mtlkit.testing.common import COMMON_INPUTS, COMMON_TRUNKS
from mtlkit.testing.loss import check_loss
from mtlkit.testing.model import check_model
from mtlkit.testing.module import check_encoder, check_head
from mtlkit.testing.sharing import check_sharing

__all__ = [
    "COMMON_INPUTS",
    "COMMON_TRUNKS",
    "check_balancer",
    "check_encoder",
    "check_head",
    "check_loss",
    "check_model",
    "check_sharing",
]
