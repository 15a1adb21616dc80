"""What a file says of itself, as JSON under one key: in ONNX among the metadata, in a .pt2 among the extra files.

note(wanted)     # {"predictions": true, "table": {"inputs": [...], "targets": {...}, ...}}

The table is that of `table.json` in the folder of a run, with the targets of tasks that are in the file.
"""

from __future__ import annotations

import json
from typing import Any

from mtlkit.exporting.wanted import Wanted

KEY = "mtlkit"


def note(wanted: Wanted) -> str:
    """The JSON, in ASCII, since not all that reads such files knows another encoding."""
    said: dict[str, Any] = {"predictions": wanted.predictions}
    if wanted.table is not None:
        table = wanted.table.to_json()
        said["table"] = {**table, "targets": {task: table["targets"][task] for task in wanted.targets}}
    return json.dumps(said)
