"""Images as MXNet arrays.  MXNet itself is imported when a function is called."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["color_normalize", "fixed_crop", "read", "resize", "transform_shape", "write"]


def _mxnet() -> Any:
    return importlib.import_module("mxnet")


def transform_shape(img_arr: Any, dim_order: str = "NCHW") -> Any:
    """Height, width, channels to a batch of one in `NCHW` or `NHWC`."""
    if dim_order not in ("NCHW", "NHWC"):
        raise ValueError("dim_order is NCHW or NHWC")
    if dim_order == "NCHW":
        img_arr = _mxnet().nd.transpose(img_arr, (2, 0, 1))
    return img_arr.expand_dims(axis=0)


def read(buf: Any, flag: int = 1, to_rgb: bool = True, out: Any = None) -> Any:
    """Bytes of an image to an array."""
    return _mxnet().image.imdecode(buf, flag, to_rgb, out)


def write(img_arr: Any, flag: int = 1, format: str = "jpeg", dim_order: str = "CHW") -> str:
    """An array to the base64 text of an image."""
    import base64
    import io

    from PIL import Image

    if dim_order == "CHW":
        img_arr = _mxnet().nd.transpose(img_arr, (1, 2, 0))
    buffer = io.BytesIO()
    pixels = img_arr.astype("uint8").asnumpy()
    Image.fromarray(pixels if flag else pixels[..., 0]).save(buffer, format)
    return base64.b64encode(buffer.getvalue()).decode()


def resize(src: Any, new_width: int, new_height: int, interp: int = 2) -> Any:
    return _mxnet().image.imresize(src, new_width, new_height, interp)


def fixed_crop(
    src: Any, x0: int, y0: int, w: int, h: int, size: Any = None, interp: int = 2
) -> Any:
    return _mxnet().image.fixed_crop(src, x0, y0, w, h, size, interp)


def color_normalize(src: Any, mean: Any, std: Any = None) -> Any:
    array = _mxnet().nd.array
    deviation = None if std is None else array(std)
    return _mxnet().image.color_normalize(src, array(mean), deviation)
