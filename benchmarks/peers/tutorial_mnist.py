"""The classic PyTorch tutorial on MNIST, as its readers run it.

784-512-256-128-64-10 with ReLU, SGD 0.01 with momentum 0.5, batches of 64 from a shuffling
``DataLoader``, every image converted and normalised on its own, ten epochs, the loss printed every
300 batches and the test set evaluated after each epoch.

Written for this benchmark. The tutorial takes the data set and its transforms from torchvision,
which this project's environment does not have; ``MNIST``, ``to_tensor`` and ``normalize`` below do
the same steps by hand: array → PIL image → uint8 array → float tensor in [0, 1] with the channel
first → minus the mean, over the deviation.

The one addition is a hook: ``train`` calls ``probe(seconds, network)`` every ``probe_every``
batches and leaves the probe's own time out of the seconds, so that the time to a given accuracy is
found more finely than once per epoch without making the script slower.
"""

from __future__ import annotations

import gzip
import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import relu
from torch.utils.data import DataLoader, Dataset

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EPOCHS = 10


def to_tensor(image: Image.Image) -> torch.Tensor:
    """Do what ``transforms.ToTensor`` does: bytes (H, W) to floats in [0, 1] of (1, H, W)."""
    array = torch.from_numpy(np.array(image, dtype=np.uint8, copy=True))
    return (
        array.view(image.size[1], image.size[0], 1).permute(2, 0, 1).contiguous().float().div(255)
    )


def normalize(tensor: torch.Tensor) -> torch.Tensor:
    """Do what ``transforms.Normalize((0.1307,), (0.3081,))`` does."""
    mean = torch.as_tensor([0.1307], dtype=tensor.dtype).view(-1, 1, 1)
    std = torch.as_tensor([0.3081], dtype=tensor.dtype).view(-1, 1, 1)
    return tensor.clone().sub_(mean).div_(std)


class MNIST(Dataset):
    """The images and labels of one part ("train" or "t10k"), converted one at a time."""

    def __init__(self, folder: Path, part: str) -> None:
        with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
            data = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
        with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
            targets = np.frombuffer(file.read(), np.uint8, offset=8)
        self.data = torch.from_numpy(data.copy())
        self.targets = torch.from_numpy(targets.astype(np.int64))

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        """Return one image, as a normalised tensor, and its label."""
        image = Image.fromarray(self.data[index].numpy())
        return normalize(to_tensor(image)), int(self.targets[index])


class Net(nn.Module):
    """Five linear layers; returns logits, which ``CrossEntropyLoss`` takes."""

    def __init__(self) -> None:
        super().__init__()
        self.l1 = nn.Linear(784, 512)
        self.l2 = nn.Linear(512, 256)
        self.l3 = nn.Linear(256, 128)
        self.l4 = nn.Linear(128, 64)
        self.l5 = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch of images."""
        x = x.view(-1, 784)
        x = relu(self.l1(x))
        x = relu(self.l2(x))
        x = relu(self.l3(x))
        x = relu(self.l4(x))
        return self.l5(x)


def test(model: nn.Module, loader: DataLoader) -> float:
    """Return the accuracy over the loader."""
    model.eval()
    correct = 0
    with torch.no_grad():
        for data, target in loader:
            output = model(data)
            predicted = output.max(dim=1)[1]
            correct += int((predicted == target).sum())
    return correct / len(loader.dataset)


def train(
    folder: Path,
    *,
    epochs: int = EPOCHS,
    seed: int = 0,
    verbose: bool = False,
    probe: Callable[[float, nn.Module], bool] | None = None,
    probe_every: int = 100,
) -> tuple[float, float]:
    """Run the script; return the last test accuracy and the seconds, reading the files included.

    ``probe(seconds, network)`` may return True to stop.
    """
    torch.manual_seed(seed)
    start = time.perf_counter()
    paused = 0.0
    train_loader = DataLoader(MNIST(folder, "train"), batch_size=64, shuffle=True)
    test_loader = DataLoader(MNIST(folder, "t10k"), batch_size=64, shuffle=False)
    model = Net()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.5)
    accuracy = 0.0
    for epoch in range(epochs):
        running_loss = 0.0
        for batch, (data, target) in enumerate(train_loader):
            model.train()
            optimizer.zero_grad()
            output = model(data)
            loss = criterion(output, target)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
            if batch % 300 == 299:
                if verbose:
                    print(f"[{epoch + 1}, {batch + 1:5d}] loss: {running_loss / 300:.3f}")
                running_loss = 0.0
            if probe is not None and batch % probe_every == probe_every - 1:
                now = time.perf_counter()
                stop = probe(now - start - paused, model)
                paused += time.perf_counter() - now
                if stop:
                    return accuracy, time.perf_counter() - start - paused
        accuracy = test(model, test_loader)
        if verbose:
            print(f"Accuracy on test set: {100 * accuracy:.2f} %")
    return accuracy, time.perf_counter() - start - paused
