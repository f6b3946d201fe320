"""Loads EfficientNet-Lite0, which sorts images into ImageNet's classes, from the state dict that torch.save wrote.

Source of the architecture and of the pictures' preparation: Google's `efficientnet/lite` (efficientnet_lite_builder.py:
ReLU6, no squeeze and excitation, stem and head of fixed width); of the names in the file: efficientnet-lite-pytorch's
`model.py`. transformers has only the EfficientNets that squeeze.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPImageProcessorPil, ImageClassificationPipeline, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention

CLASSES = Path(__file__).with_name("imagenet_classes.txt")
SIDE = 224
"""Pixels a side of the image that the network reads."""
_MARGIN = 32
"""Pixels cut from the shorter side before that, in all."""
_BLOCKS = (
    (1, 3, 1, 1, 32, 16), (2, 3, 2, 6, 16, 24), (2, 5, 2, 6, 24, 40), (3, 3, 2, 6, 40, 80), (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192), (1, 3, 1, 6, 192, 320),
)  # fmt: skip
"""Repeats, kernel, stride of the first, expansion, channels in, channels out."""
_HEAD = 1280


class EfficientNetLiteConfig(PreTrainedConfig):  # type: ignore[misc]  # transformers has no types
    model_type = "efficientnet-lite"


class EfficientNetLite(PreTrainedModel):  # type: ignore[misc]
    """The network. Input: (images, 3, 224, 224)."""

    config_class = EfficientNetLiteConfig
    main_input_name = "pixel_values"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.conv_stem = _Convolution(3, 32, 3, stride=2)
        self.bn0 = _norm(32)
        blocks = []
        for repeats, kernel, stride, expansion, before, after in _BLOCKS:
            blocks.append(_Block(kernel, stride, expansion, before, after))
            blocks += [_Block(kernel, 1, expansion, after, after) for _ in range(repeats - 1)]
        self.blocks = nn.ModuleList(blocks)
        self.conv_head = _Convolution(_BLOCKS[-1][-1], _HEAD, 1)
        self.bn1 = _norm(_HEAD)
        self.fc = nn.Linear(_HEAD, config.num_labels)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor) -> Any:
        """Returns a score for each class."""
        found = functional.relu6(self.bn0(self.conv_stem(pixel_values)))
        for block in self.blocks:
            found = block(found)
        found = functional.relu6(self.bn1(self.conv_head(found)))
        return ImageClassifierOutputWithNoAttention(logits=self.fc(found.mean((2, 3))))


class _Block(nn.Module):  # type: ignore[misc]
    """An inverted residual (MobileNetV2, arXiv:1801.04381, section 3.4)."""

    def __init__(self, kernel: int, stride: int, expansion: int, before: int, after: int) -> None:
        super().__init__()
        width = before * expansion
        self._expands, self._adds = expansion != 1, stride == 1 and before == after
        if self._expands:
            self.expand_conv = _Convolution(before, width, 1)
            self.bn0 = _norm(width)
        self.depthwise_conv = _Convolution(width, width, kernel, stride=stride, groups=width)
        self.bn1 = _norm(width)
        self.project_conv = _Convolution(width, after, 1)
        self.bn2 = _norm(after)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        found = functional.relu6(self.bn0(self.expand_conv(given))) if self._expands else given
        found = functional.relu6(self.bn1(self.depthwise_conv(found)))
        found = self.bn2(self.project_conv(found))
        return found + given if self._adds else found


class _Convolution(nn.Conv2d):  # type: ignore[misc]
    """Pads as TensorFlow's "SAME", for sides that the stride divides: the odd row is below and on the right."""

    def __init__(self, before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__(before, after, kernel, stride, groups=groups, bias=False)
        first, both = (kernel - stride) // 2, kernel - stride
        self._around = [first, both - first] * 2

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return super().forward(functional.pad(given, self._around))


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=1e-3)


class PictureClasses(ImageClassificationPipeline):  # type: ignore[misc]
    """transformers' pipeline with a network of our own."""

    def check_model_type(self, supported_models: Any) -> None:
        """Skips the check: `load` gave it the network."""


def load(path: Path, device: torch.device, kind: torch.dtype) -> PictureClasses:
    """Loads the pipeline, its weights as `kind` on `device`. Raises ValueError for another state dict."""
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"{path.name} is not a state dict of torch.save") from error
    names = [line for line in CLASSES.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    model = EfficientNetLite(EfficientNetLiteConfig(id2label=dict(enumerate(names)), num_labels=len(names)))
    try:
        # efficientnet-lite-pytorch begins each name with an underscore.
        model.load_state_dict({name.replace("._", ".").removeprefix("_"): value for name, value in weights.items()})
    except (RuntimeError, AttributeError) as error:
        raise ValueError(f"{path.name} does not hold a whole EfficientNet-Lite0, the only state dict read") from error
    prepare = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE + _MARGIN},
        crop_size={"height": SIDE, "width": SIDE},
        image_mean=[127 / 255] * 3,
        image_std=[128 / 255] * 3,
    )
    return PictureClasses(model=model.to(kind), image_processor=prepare, device=device)
