"""How a folder of images becomes a model's input, and its predictions a table.

    data = mtlkit.datasets["images"](folder="photos", labels="labels.csv", tasks={"species": "class"})
    for x in data.table.parts("new"): ...            # float32 [N, C, H, W], some images at a time
    data.table.write("predicted.csv", predictions, "new")

It is kept beside the model as JSON, as the format of a table is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter
from torch import Tensor

from mtlkit.data.extra import bench_extra
from mtlkit.data.frame import write_table
from mtlkit.data.picture.folder import find_images, load_images
from mtlkit.data.picture.form import Form
from mtlkit.data.predicted import decoded, with_predictions
from mtlkit.data.target import Cells, Target

Normalize = Literal["train", "imagenet", "none"]

# Of the images that are read at once to predict for.
_BYTES = 2**28
_FLOAT = 4

_IMAGENET = [(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]


@dataclass(frozen=True)
class Channel:
    """The mean and standard deviation that a channel, from 0 to 1, is standardised by."""

    mean: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    deviation: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0


@dataclass(frozen=True)
class ImageFormat:
    """The form of the images, the scales of their channels, and the targets by task."""

    form: Form
    scales: list[Channel]
    targets: dict[str, Target]
    kind: Literal["images"] = "images"
    example: ClassVar[str] = "photos"

    def __post_init__(self) -> None:
        if len(self.scales) != self.form.channels:
            raise ValueError(f"found the scales of {len(self.scales)} channels, expected {self.form.channels}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H and W of what a model reads."""
        return self.form.shape

    def parts(self, source: str) -> Iterator[Tensor]:
        """The images below a folder, or the one in a file, as float32 [N, C, H, W], some of them at a time.

        Raises:
            DataError: there is none, or one can't be read.
        """
        folder, names = _listed(source)
        step = max(1, _BYTES // (_FLOAT * prod(self.form.shape)))
        for start in range(0, len(names), step):
            yield standardised(load_images(folder, names[start : start + step], self.form), self.scales)

    def write(self, path: str, predictions: Mapping[str, Tensor], source: str) -> None:
        """Write a table, CSV or Parquet as `path` ends: the column `path`, of each image in `source`, and predictions.

        The columns are those of `with_predictions`.

        Raises:
            DataError: the source can't be read, or the predictions are not of these images and tasks.
            MtlkitError: the file can't be written.
        """
        pandas = bench_extra("pandas", "a table file")
        frame = pandas.DataFrame({"path": _listed(source)[1]})
        write_table(path, with_predictions(frame, self.targets, predictions, source))

    def decoded(self, task: str, prediction: NDArray[np.float32]) -> Cells:
        """The columns of a task's predictions, as `predicted.decoded` gives and raises."""
        return decoded(self.targets, task, prediction)

    def to_json(self) -> dict[str, Any]:
        """The state as pure data, for `json.dump`."""
        return STATE.dump_python(self, mode="json")


STATE = TypeAdapter(ImageFormat)


def fit_scales(normalize: Normalize, x: Tensor) -> list[Channel]:
    """The scales of the channels of images [N, C, H, W] from 0 to 1; ImageNet's are of RGB."""
    if normalize == "none":
        return [Channel()] * x.shape[1]
    if normalize == "imagenet":
        return [Channel(*scale) for scale in _IMAGENET]
    deviations, means = torch.std_mean(x, dim=(0, 2, 3), correction=0)
    # A channel that is constant has no deviation.
    return [Channel(m, d or 1.0) for m, d in zip(means.tolist(), deviations.tolist(), strict=True)]


def standardised(x: Tensor, scales: Sequence[Channel]) -> Tensor:
    """Images [N, C, H, W] by these scales, in place, since they may fill the memory."""
    mean, deviation = (torch.tensor([getattr(one, name) for one in scales]) for name in ("mean", "deviation"))
    return x.sub_(mean[:, None, None]).div_(deviation[:, None, None])


def _listed(source: str) -> tuple[str, list[str]]:
    """A folder and the images below it; of a file, its own folder and name."""
    path = Path(source)
    return (str(path.parent), [path.name]) if path.is_file() else (source, find_images(source))
