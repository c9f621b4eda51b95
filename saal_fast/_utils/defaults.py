"""What the package's own networks are made as, whatever torch's default device and type are."""

from __future__ import annotations

from typing import Any

import torch

PLAIN: dict[str, Any] = {"device": "cpu", "dtype": torch.float32}
"""Keywords of a layer's constructor."""
