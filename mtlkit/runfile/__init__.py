"""Run files: a model, how to train it, and its data, in one TOML, JSON or YAML file.

    init_from = "runs/flowers"      # may be left out: the folder of a trained model that this one begins from

    [data]
    type = "csv"
    path = "flowers.csv"
    tasks = { species = "class", petal_width = "number" }

    [model]
    encoder = { type = "mlp", hidden = [64] }

    [train]
    epochs = 30

`[model]` is a spec; what the data fix, its inputs and tasks, may be left out, and so may be `outputs`, `loss` and
`metrics` of a task that it names: `[model.tasks.species]` with `weight = 0.5` alone is enough. Where it names tasks,
these alone are trained. `[train]` holds the trainer's arguments. Paths are relative to where the program runs.

With `init_from` the model is `mtlkit.adapt(the trained one, this spec)`. What `[model]` leaves out of `encoder`,
`encoders` and `sharing` is as there, and a table is read as there: by the same columns, scales and categories.

`file` reads one and says all that is wrong before the data are read, `spec` completes its model, `start` is what a run
begins from, `running` trains, and `kept` opens what was trained.
"""

from mtlkit.runfile.examples import for_tasks
from mtlkit.runfile.file import RunFile, checked_run, parsed_run, read_run
from mtlkit.runfile.kept import RUN, TABLE, Kept, kept_run, open_run, open_table
from mtlkit.runfile.running import Finished, seeded_model, spec_of, train
from mtlkit.runfile.spec import complete

__all__ = [
    "RUN",
    "TABLE",
    "Finished",
    "Kept",
    "RunFile",
    "checked_run",
    "complete",
    "for_tasks",
    "kept_run",
    "open_run",
    "open_table",
    "parsed_run",
    "read_run",
    "seeded_model",
    "spec_of",
    "train",
]
