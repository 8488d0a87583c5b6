"""A device that is not there: its tensors are computed by the CPU, and each wait for it is counted.

Code that is right on this device mixes no tensors of two devices, asks none for NumPy, adds up no
floats in an order that CUDA does not keep, and waits for it as often as `Pretend.waits` says: to
read a number, to copy there or back, or to learn a shape that depends on values. What CUDA
would wait for, by PyTorch's ``set_sync_debug_mode``.
"""

import weakref
from contextlib import nullcontext

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode
from torch.utils._pytree import tree_flatten, tree_map

__all__ = ["DEVICE", "Pretend", "Recording"]

aten = torch.ops.aten
# PyTorch has no kernels for it: whatever is not computed here is an error.
DEVICE = torch.device("meta")
# The shapes of their results depend on values, or they check their input on the host.
WAITING = {
    aten.nonzero.default, aten.masked_select.default, aten.bincount.default, aten.equal.default,
    aten._unique2.default, aten.unique_consecutive.default, aten.unique_dim.default,
    aten.repeat_interleave.Tensor, aten._local_scalar_dense.default, aten._linalg_eigh.default,
}  # fmt: skip
# CUDA adds up in an order that differs from run to run, which floats show.
ANY_ORDER = {
    aten.index_add.default, aten.index_add_.default, aten.scatter_add.default,
    aten.scatter_add_.default, aten.scatter_reduce.two, aten.scatter_reduce_.two,
}  # fmt: skip
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}


class Far(torch.Tensor):
    """A tensor of the device; the numbers are in a tensor of the CPU."""

    @staticmethod
    def __new__(cls, inner):
        """Wrap a tensor of the CPU."""
        far = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        far.inner = inner
        return far

    def __repr__(self):
        """Show that it is one."""
        return f"Far({self.inner})"

    def tolist(self):
        """Return the numbers: one wait for all of them."""
        return self.cpu().tolist()

    def numpy(self):
        """Refuse, as CUDA's do."""
        raise TypeError("a tensor of the pretended device is no array: copy it to the CPU first")

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        """Refuse what is asked for without the device."""
        raise RuntimeError(f"{func} on the pretended device, outside of `with Pretend()`")


class Pretend(TorchDispatchMode):
    """The device, inside of ``with``.

    Attributes
    ----------
    waits : int
        How often the host has waited for it.
    asked : list of str
        For what.
    """

    def __init__(self):
        super().__init__()
        self.asked = []
        self.recording = None

    @property
    def waits(self):
        """How often the host has waited."""
        return len(self.asked)

    def put(self, tensor):
        """Return a copy on the device."""
        return Far(tensor.clone())

    def take(self, tensor):
        """Return what is in a tensor of the device, without a wait."""
        return tensor.inner if isinstance(tensor, Far) else tensor

    def _look(self, func, args, tensors):
        """Refuse what has other bits each time on CUDA, and count what waits."""
        if _in_any_order(func, args, tensors):
            raise AssertionError(f"{func} of floats: CUDA's bits differ from run to run")
        if func in WAITING or (func in INDEXING and _has_mask(args[1])):
            self.asked.append(str(func))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Compute on the CPU what is asked of either device."""
        kwargs = dict(kwargs or {})
        tensors = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
        far = any(isinstance(t, Far) for t in tensors)
        here = any(not isinstance(t, Far) and t.ndim > 0 for t in tensors)
        device = kwargs.get("device")
        there = far if device is None else torch.device(device).type == DEVICE.type
        copies = func in (aten._to_copy.default, aten.copy_.default)
        if copies and tensors:
            source = tensors[-1]
            there = there if func is aten._to_copy.default else isinstance(args[0], Far)
            crosses = isinstance(source, Far) != there
            if crosses and self.recording is not None:
                raise AssertionError(f"captured {func} between the host and the device")
            waits = kwargs.get("non_blocking", False) or (len(args) > 2 and args[2])
            if crosses and source.numel() and not (waits and there):
                self.asked.append(str(func))
        elif far and here:
            raise RuntimeError(f"{func}: tensors of two devices")
        if far:
            self._look(func, args, tensors)
        if device is not None:
            kwargs["device"] = torch.device("cpu")
        inner = tree_map(self.take, (args, kwargs))
        if self.recording is not None:
            self.recording.expect(inner)
        result = func(*inner[0], **inner[1])
        if self.recording is not None:
            self.recording.add(func, inner, result)
        if not there:
            return result
        known = {id(t.inner): t for t in tensors if isinstance(t, Far)}

        def wrapped(value):
            if not isinstance(value, torch.Tensor):
                return value
            return known.get(id(value)) if id(value) in known else Far(value)

        return tree_map(wrapped, result)


def _in_any_order(func, args, tensors):
    """Whether CUDA's result depends on what comes first."""
    floats = any(t.is_floating_point() for t in tensors)
    if func is aten.bincount.default:
        return floats
    if func in (aten.cumsum.default, aten.cumsum_.default):  # of one row over several programs
        return floats and tensors[0].ndim == 1
    if func in (aten.index_put.default, aten.index_put_.default):
        return floats and len(args) > 3 and args[3]
    if func in (aten.scatter_add.default, aten.scatter_add_.default):
        # The backward pass of `gather`, with one index for each row, adds once to each place.
        _, dim, index = args[:3]
        return floats and index.shape[dim] > 1
    return floats and func in ANY_ORDER


def _has_mask(indices):
    return any(t is not None and t.dtype in (torch.bool, torch.uint8) for t in indices)


class Recording:
    """A graph of the device, in the place of `luce.graphs.Recording`: operators, done again.

    As with CUDA's no Python runs again: numbers, shapes and places are what they were. What was
    read there but made elsewhere has to be there still.

    Attributes
    ----------
    replayed : int
        How often it was.
    """

    def __init__(self, device):
        assert device == DEVICE
        self.replayed = 0
        self._calls, self._own, self._before = [], {}, {}

    def warming(self):
        """Work as always."""
        return nullcontext()

    def capture(self, function):
        """Return what a function returns; all that was there before is as it was."""
        device = _get_current_dispatch_mode()
        waits, random = device.waits, torch.get_rng_state()
        device.recording = self
        try:
            result = function()
        finally:
            device.recording = None
        assert device.waits == waits, f"captured waits: {device.asked[waits:]}"
        torch.set_rng_state(random)
        for tensor, before in self._before.values():
            tensor.copy_(before)
        self._before.clear()
        return result

    def expect(self, arguments):
        """Remember what an operator is about to be given, as it is."""
        for x in _tensors(arguments):
            if id(x) not in self._own and id(x) not in self._before:
                self._before[id(x)] = x, x.clone()

    def add(self, func, arguments, result):
        """Take an operator in."""
        self._own |= {id(x): x for x in _tensors(result) if id(x) not in self._before}

        def held(x):
            return x if not isinstance(x, torch.Tensor) or id(x) in self._own else weakref.ref(x)

        self._calls.append((func, tree_map(held, arguments), result))

    def replay(self):
        """Do it all again."""
        device = _get_current_dispatch_mode()
        waits, self.replayed = device.waits, self.replayed + 1
        for func, arguments, result in self._calls:
            args, kwargs = tree_map(_there, arguments)
            again = func(*args, **kwargs)
            for place, x in zip(_tensors(result), _tensors(again), strict=True):
                assert place.shape == x.shape, f"{func} has another shape"
                if place.data_ptr() != x.data_ptr():
                    place.copy_(x)
        assert device.waits == waits


def _tensors(values):
    return [x for x in tree_flatten(values)[0] if isinstance(x, torch.Tensor)]


def _there(held):
    if not isinstance(held, weakref.ref):
        return held
    tensor = held()
    assert tensor is not None, "a tensor that was captured is gone"
    return tensor
