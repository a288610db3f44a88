"""ImageClassifier: the best few classes of an image, with their probabilities.

Source: contracts/torchserve.md 7.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from stoker.handlers import vision
from stoker.handlers.labels import map_class_to_label
from stoker.handlers.timing import timed
from stoker.handlers.vision import VisionHandler

if TYPE_CHECKING:
    import torch
    from PIL import Image

RESIZED: Final = 256
CROPPED: Final = 224
#: Of ImageNet, which most pretrained classifiers saw.
MEAN: Final = (0.485, 0.456, 0.406)
DEVIATION: Final = (0.229, 0.224, 0.225)


class ImageClassifier(VisionHandler):
    """Answers `{label: probability}` for the `topk` best classes of each image."""

    topk = 5

    def image_processing(self, image: Image.Image) -> torch.Tensor:
        """What ImageNet models expect; override it for models that saw something else."""
        rgb = image.convert("RGB")
        cropped = vision.crop_center(vision.resize_shorter_side(rgb, RESIZED), CROPPED)
        return vision.normalise(vision.tensor_of_rgb(cropped), MEAN, DEVIATION)

    def set_max_result_classes(self, topk: int) -> None:
        self.topk = topk

    def get_max_result_classes(self) -> int:
        return self.topk

    @timed
    def postprocess(self, data: Any) -> list[Any]:
        import torch

        shares = torch.nn.functional.softmax(data, dim=1)
        probs, classes = torch.topk(shares, min(self.topk, shares.shape[1]), dim=1)
        return map_class_to_label(probs.tolist(), self.mapping, classes.tolist())
