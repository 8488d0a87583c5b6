"""What tests on a GPU share."""

import warnings
from contextlib import contextmanager

import torch

__all__ = ["without_waits"]


@contextmanager
def without_waits():
    """Make it an error to wait for the GPU: PyTorch itself watches over that."""
    with warnings.catch_warnings():
        # It warns, once, that it is a prototype. That says nothing of what is tested.
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype", UserWarning)
        try:
            torch.cuda.set_sync_debug_mode("error")
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
