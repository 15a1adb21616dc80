"""What the best constant prediction scores on a bench's test data: once for all variants, of which none changes it.

constant_scores(plan)      # {"left": {"loss": 2.3, "accuracy": 0.11}, ...}
"""

from __future__ import annotations

from warnings import warn

from mtlkit.bench.plan import Plan
from mtlkit.runfile import for_tasks, seeded_model
from mtlkit.train import Trainer
from mtlkit.train.evaluation import Scores


def constant_scores(plan: Plan) -> Scores:
    """By task and metric; empty, with a warning, where a model of the tasks can't be made or the data can't be read."""
    smallest = min(plan.variants.values(), key=lambda one: one.parameters)
    try:
        model = seeded_model(smallest.spec, smallest.train)
        trainer = Trainer(model, batch_size=smallest.train["batch_size"], progress=False)
        train, test = (for_tasks(examples, model.tasks) for examples in (plan.data.train, plan.data.test))
        return trainer.evaluate_constant(train, test)
    except Exception as error:  # noqa: BLE001 - a trunk may be a plugin's and fail in any way; its runs tell of it
        warn(f"no constant prediction to compare with: {type(error).__name__}: {error}", stacklevel=2)
        return {}
