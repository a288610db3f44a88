"""VisionHandler: images in, one tensor for the batch out.

Source: contracts/torchserve.md 7.4.
"""

from __future__ import annotations

import base64
import importlib
import io
from typing import TYPE_CHECKING, Any

from stoker.handlers.base import BaseHandler, body_of
from stoker.handlers.timing import timed

if TYPE_CHECKING:
    import torch
    from PIL import Image


class VisionHandler(BaseHandler):
    """Base of handlers for images; subclasses give `image_processing` and `postprocess`.

    `image_processing` turns one PIL image into one tensor.  It may be a
    method, or a class attribute that can be called, such as a torchvision
    `Compose`.
    """

    image_processing: Any

    def initialize(self, context: Any) -> None:
        super().initialize(context)
        if not context.system_properties.get("limit_max_image_pixels", True):
            from PIL import Image

            Image.MAX_IMAGE_PIXELS = None

    @timed
    def preprocess(self, data: list[Any]) -> torch.Tensor:
        """Images as bytes, as base64 text, or as nested lists of numbers; all of one shape."""
        import torch

        return torch.stack([self._tensor_of(body_of(row)) for row in data]).to(self.device)

    def _tensor_of(self, image: Any) -> torch.Tensor:
        import torch

        if isinstance(image, str):
            image = base64.b64decode(image)
        if not isinstance(image, (bytes, bytearray)):
            return torch.as_tensor(image, dtype=torch.float32)
        from PIL import Image

        with Image.open(io.BytesIO(image)) as opened:
            tensor: torch.Tensor = self.image_processing(opened)
        return tensor

    def get_insights(self, tensor_data: Any, raw_data: Any, target: int = 0) -> list[Any]:
        """Integrated gradients of the class `target`; needs captum."""
        captum = importlib.import_module("captum.attr")
        gradients = captum.IntegratedGradients(self.model)
        attributions: list[Any] = gradients.attribute(
            tensor_data, target=target, n_steps=15
        ).tolist()
        return attributions


def resize_shorter_side(image: Image.Image, size: int) -> Image.Image:
    """Scale so that the shorter side is `size`, keeping the proportions."""
    from PIL import Image

    width, height = image.size
    if width <= height:
        scaled = (size, int(size * height / width))
    else:
        scaled = (int(size * width / height), size)
    return image.resize(scaled, Image.Resampling.BILINEAR)


def crop_center(image: Image.Image, size: int) -> Image.Image:
    """The square of side `size` in the middle; what is missing outside is black."""
    width, height = image.size
    left, top = round((width - size) / 2.0), round((height - size) / 2.0)
    return image.crop((left, top, left + size, top + size))


def tensor_of_rgb(image: Image.Image) -> torch.Tensor:
    """Channels first, values from 0 to 1; works without numpy."""
    import torch

    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    width, height = image.size
    return pixels.view(height, width, -1).permute(2, 0, 1).to(torch.float32).div(255)


def normalise(
    tensor: torch.Tensor, mean: tuple[float, ...], deviation: tuple[float, ...]
) -> torch.Tensor:
    import torch

    shift = torch.tensor(mean).view(-1, 1, 1)
    scale = torch.tensor(deviation).view(-1, 1, 1)
    return (tensor - shift) / scale
