"""An average of fitted models as a model: the weighted mean of their probabilities.

`luce train` makes it, of what it has trained already; nobody asks for one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self, final

import msgspec

from luce.errors import ArgumentError
from luce.models.base import Estimator, Layer, Model, anywhere
from luce.options import Kind, Option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from luce.models.steps import Step

__all__ = ["Average", "Averaged", "Member", "Part"]

Weight = Annotated[float, msgspec.Meta(gt=0, le=1)]
Temperature = Annotated[float, msgspec.Meta(gt=0, le=1e6)]


@dataclass(frozen=True, kw_only=True)
class Part:
    """What an average says of one of its models.

    Attributes
    ----------
    label : str
        Its name, which no other has; its tensors' names begin with it.
    model : str
        Its kind.
    weight : float
        Its share; all together are 1.
    temperature : float
        What its logits are divided by before.
    options : mapping
        Its own, as `Model.resolved` gives them.
    """

    label: str
    model: str
    weight: Weight
    temperature: Temperature
    options: dict[str, Any]


class Member(NamedTuple):
    """A part of an average with its estimator, and the kind that knows how to ask it."""

    part: Part
    kind: Model[Any]
    estimator: Estimator


class Averaged:
    """The estimator: p(class | row) = Σ weight · softmax(logits / temperature) over the members.

    Parameters
    ----------
    parts : sequence of Part
        What it is made of.
    members : sequence of Member
        The same with fitted estimators; none where it is not fitted.
    """

    classes_: Any

    def __init__(self, parts: Sequence[Part], members: Sequence[Member] = ()) -> None:
        self.parts = parts
        self.members = members
        if members:
            self.classes_ = members[0].estimator.classes_

    @classmethod
    def of(cls, members: Sequence[Member]) -> Self:
        """Return the average of fitted members; of a member that is one itself, of its own.

        Raises
        ------
        ArgumentError
            If such a member is softened or sharpened as a whole: its own members cannot be, one by
            one, to the same probabilities.
        """
        flat: list[Member] = []
        for member in members:
            if not isinstance(member.estimator, Averaged):
                flat.append(member)
                continue
            if member.part.temperature != 1:
                raise ArgumentError(
                    "an average within an average must have the temperature 1, got "
                    f"{member.part.temperature}."
                )
            for part, kind, estimator in member.estimator.members:
                inner = replace(part, weight=member.part.weight * part.weight)
                flat.append(Member(inner, kind, estimator))
        return cls([member.part for member in flat], flat)

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002
        """Return the parts, as plain data."""
        return {"parts": [asdict(part) for part in self.parts]}

    def fit(self, X: Any, y: Any) -> Any:  # noqa: ARG002
        """Refuse: its members are fitted, each for itself."""
        raise ArgumentError("an average is of models that are fitted. Fit these.")

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the log-probabilities of encoded rows, (rows, classes)."""
        import numpy as np

        total: NDArray[np.float64] | None = None
        for part, kind, estimator in self.members:
            own = np.asarray(kind.log_probabilities(estimator, X), dtype=np.float64)
            if part.temperature != 1:
                own = own / part.temperature
                own -= np.logaddexp.reduce(own, axis=1, keepdims=True)
            own = own + math.log(part.weight)
            total = own if total is None else np.logaddexp(total, own)
        assert total is not None  # noqa: S101 - for mypy: an average has members
        # Weights are a sum of roundings.
        logarithms: NDArray[np.float64] = np.minimum(total, 0.0)
        return logarithms

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probabilities of encoded rows, (rows, classes)."""
        import numpy as np

        probabilities: NDArray[np.float64] = np.exp(self.predict_log_proba(X))
        return probabilities


@final
class Average(Model[Averaged]):
    """The weighted mean of other models' probabilities.

    Parameters
    ----------
    kinds : mapping of str to Model
        The kinds that it may be made of.
    """

    takes_images = True
    options = {  # noqa: RUF012
        "parts": Option(Kind(words="the models of an average", allows=lambda _: True))
    }

    def __init__(self, kinds: Mapping[str, Model[Any]]) -> None:
        self._kinds = kinds

    def make(self, options: Mapping[str, Any]) -> Averaged:
        """Return the average of these parts, without their estimators."""
        try:
            parts = msgspec.convert(options.get("parts"), list[Part])
        except msgspec.ValidationError as error:
            raise ArgumentError(f"average: its parts: {error}.") from error
        if not math.isclose(sum(part.weight for part in parts), 1, abs_tol=1e-9):
            raise ArgumentError("average: the weights of its parts must be 1 together.")
        if len({part.label for part in parts}) < len(parts):
            raise ArgumentError("average: each of its parts must have a label of its own.")
        return Averaged(parts)

    def tensors(self, estimator: Averaged) -> dict[str, NDArray[Any]]:
        """Return those of its members, each under its label: ``linear/coef``."""
        return {
            f"{part.label}/{name}": tensor
            for part, kind, fitted in estimator.members
            for name, tensor in kind.tensors(fitted).items()
        }

    def restore(
        self,
        estimator: Averaged,
        classes: Sequence[Any],
        input_shape: Sequence[int],
        tensors: Mapping[str, NDArray[Any]],
    ) -> Averaged:
        """Return the average with its members' estimators."""
        own: dict[str, dict[str, NDArray[Any]]] = {part.label: {} for part in estimator.parts}
        for name, tensor in tensors.items():
            label, _, rest = name.partition("/")
            own[label][rest] = tensor
        members = []
        for part in estimator.parts:
            kind = self._kinds.get(part.model)
            if kind is None:
                raise ArgumentError(f"average: there is no model {part.model!r}.")
            for name in part.options:
                if name not in kind.options:
                    raise ArgumentError(f"average: {part.model} has no option {name!r}.")
            made = kind.make(anywhere(part.options))
            fitted = kind.restore(made, classes, input_shape, own[part.label])
            members.append(Member(part, kind, fitted))
        return Averaged(estimator.parts, members)

    def parameters(self, estimator: Averaged) -> int:
        """Return how many numbers its members have learnt."""
        return sum(kind.parameters(fitted) for _, kind, fitted in estimator.members)

    def layers(self, estimator: Averaged, input_shape: Sequence[int]) -> list[Layer]:
        """Return the layers of each member, named by its label."""
        return [
            replace(layer, name=f"{part.label}/{layer.name}")
            for part, kind, fitted in estimator.members
            for layer in kind.layers(fitted, input_shape)
        ]

    def steps(self, estimator: Averaged) -> list[Step] | None:
        """Return the one step that mixes its members'."""
        from luce.models.steps import Branch, Step

        branches = []
        for part, kind, fitted in estimator.members:
            steps = kind.steps(fitted)
            if steps is None:
                return None
            branches.append(Branch(weight=part.weight, temperature=part.temperature, steps=steps))
        return [Step(kind="mixture", branches=branches)]
