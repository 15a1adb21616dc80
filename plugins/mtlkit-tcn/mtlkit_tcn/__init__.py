"""A temporal convolutional network and an attention-pooling head for mtlkit. A spec names them:

{"input": [None, 12],
 "encoder": {"type": "tcn", "channels": [64, 64, 64]},
 "tasks": {"activity": {"outputs": 6, "loss": "cross_entropy", "head": "attention_pool"}}}
"""

from mtlkit_tcn.encoder import TCN
from mtlkit_tcn.head import AttentionPool

__all__ = ["TCN", "AttentionPool"]
