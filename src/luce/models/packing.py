"""A classifier as plain data and arrays, for who computes with it elsewhere; and back.

It is what a run folder holds, without the folder: nobody elsewhere has to see that, and no engine
has to carry an object of ours.
"""

from __future__ import annotations

import uuid
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from luce import models
from luce.calibrating import Calibration
from luce.calibrating_labels import LabelCalibration
from luce.data import read_schema
from luce.models.classifier import Classifier

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["Packed", "pack", "unpack"]


class Packed(NamedTuple):
    """A classifier without its objects.

    Attributes
    ----------
    key : str
        What no other packed classifier has.
    classes : int
        How many there are.
    model : str
        The kind's name.
    options : dict
        Of the estimator, plain.
    schema, calibration : bytes
        JSON; a calibration that there is not is ``null``.
    terms, tensors : dict of str to ndarray
        Of the schema, and of the estimator.
    """

    key: str
    classes: int
    model: str
    options: dict[str, Any]
    schema: bytes
    calibration: bytes
    terms: dict[str, NDArray[Any]]
    tensors: dict[str, NDArray[Any]]

    # A call's argument that is remembered: by its key alone.
    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packed) and self.key == other.key

    def __ne__(self, other: object) -> bool:
        return not self == other


def pack(model: str, options: Mapping[str, Any], classifier: Classifier) -> Packed:
    """Return a classifier of a kind, with the options that its run says, as plain data."""
    calibration = classifier.calibration
    return Packed(
        uuid.uuid4().hex,
        len(classifier.classes),
        model,
        dict(options),
        msgspec.json.encode(classifier.schema.to_json()),
        msgspec.json.encode(None if calibration is None else calibration.to_json()),
        dict(classifier.schema.tensors()),
        classifier.model.tensors(classifier.estimator),
    )


@lru_cache(maxsize=1)
def unpack(packed: Packed) -> Classifier:
    """Return the classifier; the same one for the same packed one, while no other is asked for."""
    # What an engine hands over may be read-only, for which kernels would be compiled once more.
    terms, tensors = (
        {name: np.array(array) for name, array in arrays.items()}
        for arrays in (packed.terms, packed.tensors)
    )
    schema = read_schema(msgspec.json.decode(packed.schema), terms)
    classes = list(schema.classes or [])
    several = schema.several is not None
    estimator = models.restore(
        packed.model, packed.options, classes, schema.input_shape, tensors, several=several
    )
    said = msgspec.json.decode(packed.calibration)
    kind = LabelCalibration if several else Calibration
    return Classifier(
        model=models.kind_of(packed.model),
        estimator=estimator,
        schema=schema,
        calibration=None if said is None else kind.from_json(said, classes),
    )
