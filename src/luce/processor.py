"""What the processor can do."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["HAS_BFLOAT16"]

# An older PyTorch does not say.
_CAPABILITIES: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()

# Whether it multiplies bfloat16 itself, twice as fast as float32.
HAS_BFLOAT16 = any(map(_CAPABILITIES.get, ("avx512_bf16", "amx_bf16")))
