"""Text encoders of Hugging Face transformers for mtlkit. A spec names them:

{"input": {"shape": [None], "dtype": "int64"},
 "encoder": {"type": "transformers", "model": "bert", "config": {"hidden_size": 128, "num_hidden_layers": 4}},
 "tasks": {"topic": {"outputs": 6, "loss": "cross_entropy"}}}
"""

from mtlkit_transformers.encoder import Transformers
from mtlkit_transformers.family import FAMILIES, Family

__all__ = ["FAMILIES", "Family", "Transformers"]
