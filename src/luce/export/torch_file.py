"""PyTorch: the tensor part of a run as a program of ``torch.export``, in a ``.pt2`` file."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from luce.data.plain import FARTHEST
from luce.export.comparing import compare
from luce.export.result import Exported
from luce.neural.networks import ACTIVATIONS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from luce.data.schema import Schema
    from luce.export.subject import Subject
    from luce.models.steps import Step

__all__ = ["to_torch"]


def to_torch(subject: Subject, path: Path) -> tuple[bytes, Exported]:
    """Return the file and what is to be said of it; see `luce.export.export`."""
    schema = subject.classifier.schema
    module = Probabilities(subject).eval()
    raw = schema.kind != "table"
    name, (dtype, shape) = next(iter(schema.raw_inputs.items()))
    if not raw:
        name, dtype, shape = "encoded", np.float32, schema.input_shape
    # Two rows: of one, or of none, the exporter would take the number for granted.
    example = torch.zeros(2, *shape, dtype=torch.from_numpy(np.zeros(0, dtype)).dtype)
    rows = torch.export.Dim("rows", min=0)
    program = torch.export.export(module, (example,), dynamic_shapes=({0: rows},))
    notes = {
        "classes": subject.classifier.classes,
        "input": name,
        "features": schema.feature_names if not raw else [],
        "schema": schema.to_json(),
        "run": subject.sha256,
    }
    if subject.thresholds is not None:
        notes["thresholds"] = subject.thresholds.tolist()
    file = io.BytesIO()
    text = json.dumps(notes, ensure_ascii=False)
    torch.export.save(program, file, extra_files={"luce.json": text})
    content = file.getvalue()
    loaded = torch.export.load(io.BytesIO(content)).module()

    def predict(features: Any) -> tuple[None, NDArray[Any]]:
        rows = schema.raw(features)[name] if raw else _dense(schema, features)
        with torch.no_grad():
            return None, loaded(torch.from_numpy(np.ascontiguousarray(rows, dtype))).numpy()

    sizes = ", ".join(map(str, ("rows", *shape)))
    said = []
    if not raw:
        said.append(
            f"the input is encoded rows, {shape[0]:,} numbers each: run.schema.encode(frame)[0], "
            "or what you make of schema and features in the file's luce.json."
        )
    return content, Exported(
        path=path,
        to="torch",
        bytes=len(content),
        compared=compare(subject, predict),
        inputs={name: f"{np.dtype(dtype).name} ({sizes})"},
        outputs={"probabilities": f"float32 (rows, {len(subject.classifier.classes)})"},
        notes=said,
    )


def _dense(schema: Schema, features: Any) -> NDArray[np.float32]:
    if not len(features):
        return np.zeros((0, *schema.input_shape), np.float32)
    encoded, _ = schema.encode(features)
    return encoded if isinstance(encoded, np.ndarray) else encoded.toarray()


class Probabilities(nn.Module):
    """Raw images or arrays, or encoded rows of a table → calibrated probabilities."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        schema = subject.classifier.schema
        self.normalise: nn.Module = nn.Identity()
        if schema.kind != "table":
            factor = 255.0 if schema.kind == "image" else 1.0
            self.normalise = Normalise(schema.mean, schema.scale, factor, schema.kind == "image")  # type: ignore[attr-defined]
        self.steps = nn.ModuleList(map(StepModule, subject.unrolled))
        self.temperature = subject.temperature
        self.several = subject.thresholds is not None

    def forward(self, rows: Tensor) -> Tensor:
        """Return the probabilities, (rows, classes)."""
        value = self.normalise(rows)
        for step in self.steps:
            value = step(value)
        if self.several:
            return torch.sigmoid(value / self.temperature).float()
        # Large logits over a small temperature are infinite; their distances may be.
        return torch.softmax(value.log_softmax(dim=1) / self.temperature, dim=1).float()


class Normalise(nn.Module):
    """(x / factor - mean) / scale in float64, rounded to float32."""

    def __init__(
        self, mean: Sequence[float], scale: Sequence[float], factor: float, image: bool
    ) -> None:
        super().__init__()
        shape = (1, -1, 1, 1) if image else (1, -1)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float64).view(shape))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float64).view(shape))
        self.factor = factor

    mean: Tensor
    scale: Tensor

    def forward(self, rows: Tensor) -> Tensor:
        """Return the normalised rows."""
        scaled = (rows.double() / self.factor - self.mean) / self.scale
        return scaled.clamp(-FARTHEST, FARTHEST).float()


class StepModule(nn.Module):
    """A step of a model; see `luce.models.steps`."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.kind, self.sizes = step.kind, dict(step.numbers)
        arrays = dict(step.arrays)
        arrays |= {f"encoding_{name}": array for name, array in step.encoding.items()}
        for name, array in arrays.items():
            if array.size:  # several empty tensors cannot be saved: they are in one place
                self.register_buffer(name, torch.from_numpy(array.copy()))
        self.activation = ACTIVATIONS[step.name]() if step.name else nn.Identity()
        self.branches = nn.ModuleList(
            nn.Sequential(*map(StepModule, branch.steps)) for branch in step.branches
        )
        self.weights = [(branch.weight, branch.temperature) for branch in step.branches]

    def arrays(self) -> dict[str, Tensor]:
        """Return the step's arrays."""
        return dict(self.named_buffers(recurse=False))

    def forward(self, value: Tensor) -> Tensor:
        """Return what the step makes of a value."""
        return _STEPS[self.kind](value, self)


def _linear(value: Tensor, step: StepModule) -> Tensor:
    weight = step.arrays()["weight"]
    return F.linear(value.to(weight.dtype), weight, step.arrays()["bias"].to(weight.dtype))


def _encoded(rows: Tensor, arrays: Mapping[str, Tensor], under: str = "") -> list[Tensor]:
    own = {name.removeprefix(under): array for name, array in arrays.items()}
    parts = []
    if "binned" in own:
        parts.append(((rows[:, own["binned"]] - own["low"]) / own["width"]).clamp(0, 1))
    if "numbers" in own:
        scaled = ((rows[:, own["numbers"]] - own["centre"]) / own["spread"]).clamp(-1e6, 1e6)
        parts.append(scaled / ((scaled / 3).square() + 1).sqrt())
    if "others" in own:
        parts.append(rows[:, own["others"]])
    return parts


def _embedding(rows: Tensor, step: StepModule) -> Tensor:
    arrays, parts = step.arrays(), []
    if "columns" in arrays:
        parts.append(rows[:, arrays["columns"]] @ arrays["weight"])
    if "beside" in arrays:
        parts += _encoded(rows[:, arrays["beside"]], arrays, "encoding_")
    return torch.cat(parts, dim=1)


def _members(value: Tensor, step: StepModule) -> Tensor:
    arrays = step.arrays()
    return (value.transpose(0, 1) @ arrays["weight"]).transpose(0, 1) + arrays["bias"]


def _mean(value: Tensor, _: StepModule) -> Tensor:
    single = value.log_softmax(dim=2).logsumexp(dim=1)
    return single - float(np.log(value.shape[1]))


def _mean_of_labels(value: Tensor, _: StepModule) -> Tensor:
    # Of two large probabilities the difference to 1 is what has digits.
    on, off = (F.logsigmoid(side).logsumexp(dim=1) for side in (value, -value))
    return on - off


def _code(value: Tensor, step: StepModule) -> Tensor:
    halves, none = (step.arrays()[name] for name in ("halves", "none"))
    logits = value.to(halves.dtype)
    both = F.logsigmoid(logits) + F.logsigmoid(-logits)
    return logits @ halves.T + both @ halves.abs().T - none


def _pairs(value: Tensor, step: StepModule) -> Tensor:
    """Return log p of all pairs' log-odds; see the graph's, which has the same names."""
    places, farthest = step.arrays()["places"], step.sizes["farthest"]
    z = value.double().clamp(-farthest, farthest)
    one, other = torch.sigmoid(z)[:, places], torch.sigmoid(-z)[:, places]
    alone = torch.zeros_like(one[:, 0])
    side = torch.ones_like(alone)
    rows = []
    for t in range(len(places) - 1, 0, -1):
        a, b = other[:, t, :t], one[:, t, :t]
        alone_t, side_t = alone[:, t : t + 1], side[:, t : t + 1]
        s = a.square().sum(dim=1, keepdim=True) + alone_t
        w, tied = a / s.sqrt(), a * b / s
        rows.append((tied, side_t / s))
        side = side[:, :t] + tied * side_t
        alone = alone[:, :t] + b.square() * (alone_t / s)
        one, other = one[:, :t, :t], other[:, :t, :t]
        more, less = w[:, :, None] * b[:, None], b[:, :, None] * w[:, None]
        both = one.square() + more.square()
        apart = (one * less - other * more).square() / both
        alone = alone + apart.tril(-1).sum(dim=2)
        root = both.sqrt()
        one, other = root, (one * other + more * less) / root
    c = alone / side
    x = torch.ones_like(c)
    for tied, right in reversed(rows):
        own = (tied * x).sum(dim=1, keepdim=True) + c * right
        x = torch.cat([x, own], dim=1)
    return x.log() - x.sum(dim=1, keepdim=True).log()


def _mixture(value: Tensor, step: StepModule) -> Tensor:
    said = [
        (branch(value).float().log_softmax(dim=1) / temperature).log_softmax(dim=1)
        + float(np.log(weight))
        for branch, (weight, temperature) in zip(step.branches, step.weights, strict=True)
    ]
    return torch.stack(said).logsumexp(dim=0)


def _conv(value: Tensor, step: StepModule) -> Tensor:
    stride, padding = step.sizes["stride"], step.sizes["padding"]
    return F.conv2d(value, step.arrays()["weight"], stride=stride, padding=padding)


def _norm(value: Tensor, step: StepModule) -> Tensor:
    factor, summand = (step.arrays()[name].view(1, -1, 1, 1) for name in ("factor", "summand"))
    return value * factor + summand


_STEPS: Mapping[str, Callable[[Tensor, StepModule], Tensor]] = {
    "linear": _linear,
    "activation": lambda value, step: step.activation(value),
    "flatten": lambda value, _: value.flatten(1),
    "encoding": lambda value, step: torch.cat(_encoded(value, step.arrays()), dim=1),
    "embedding": _embedding,
    "views": lambda value, step: value[:, None] * step.arrays()["signs"],
    "members": _members,
    "mean": _mean,
    "mean of labels": _mean_of_labels,
    "mixture": _mixture,
    "sigmoids": lambda value, _: F.logsigmoid(value),
    "code": _code,
    "pairs": _pairs,
    "conv": _conv,
    "norm": _norm,
    "pool": lambda value, _: F.max_pool2d(value, 2),
    "average": lambda value, step: step.arrays()["down"] @ value @ step.arrays()["across"].T,
}
