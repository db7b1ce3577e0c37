"""What an exported network does with the images that it is given, whatever they come as.

An exported file holds these functions as they stand here, and an ONNX file what `on_scale` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evonas.data.pictures import FORMATS, fitted


def on_scale(images: Tensor, values: tuple[float, float] | None) -> Tensor:
    """Return images, (..., c, h, w), on the scale of the data, if they are on another usual one.

    An image of floats from 0 to 1 is stretched to the data's range where that is larger, and one
    from 0 to 255 shrunk where that is far smaller. Each image is looked at on its own. Where the
    data have negative values, nothing is known of other scales.

    Args:
        values: the lowest and the highest value that the data have, if they are known.
    """
    if values is None or values[0] < 0:
        return images.float()
    high = values[1]
    top = images.amax(dim=(-3, -2, -1), keepdim=True)
    factor = torch.ones_like(top, dtype=torch.float32)
    if high > 1 and images.is_floating_point():
        factor = torch.where(top <= 1, high, factor)
    if 2 * high < 255:
        factor = torch.where(top > 2 * high, high / 255, factor)
    return images.float() * factor


def checked(images: Tensor, values: tuple[float, float] | None) -> Tensor:
    """Return images that are on the scale of the data.

    Raises:
        ValueError: they cannot be: some are negative, or far beyond all that the data have.
    """
    if values is None or not images.numel():
        return images
    low, high = values
    least, most = float(images.min()), float(images.max())
    margin = (high - low) / 2
    if least < (low - margin if low < 0 else 0) or most > high + margin:
        raise ValueError(
            f"the images have values from {least:.4g} to {most:.4g}, and the network takes "
            f"{low:.4g} to {high:.4g}; give them as they were in the data, not yet normalised"
        )
    return images


def as_images(
    images: Any, shape: tuple[int, int, int], values: tuple[float, float] | None
) -> Tensor:
    """Return one image, (c, h, w), or several, (n, c, h, w), for a network that takes `shape`.

    Args:
        images: a picture, as its path or opened with Pillow, or a list of them. Or an array or
            tensor: (c, h, w) or (h, w, c), grey ones also (h, w), each also with n in front. A
            picture of another size, in bytes, is scaled and cropped as the data set's were.

    Raises:
        ValueError: the network does not take such images.
    """
    if isinstance(images, list | tuple):
        return torch.stack([as_images(each, shape, values) for each in images])
    if isinstance(images, str | Path):
        from PIL import Image

        with Image.open(images, formats=FORMATS) as picture:
            return of_picture(picture, shape, values)
    if hasattr(images, "getbands"):  # a Pillow image
        return of_picture(images, shape, values)
    array = images if isinstance(images, Tensor) else torch.tensor(images)
    channels, height, width = shape
    if tuple(array.shape[-3:]) == shape:
        return array
    if tuple(array.shape[-3:]) == (height, width, channels):
        return array.movedim(-1, -3)
    if channels == 1 and array.ndim in (2, 3) and tuple(array.shape[-2:]) == (height, width):
        return array.unsqueeze(-3)
    if array.dtype == torch.uint8 and array.ndim == 4:
        return torch.stack([as_images(each, shape, values) for each in array])
    if array.dtype == torch.uint8 and (array.ndim == 2 or array.shape[2:] in ((1,), (3,), (4,))):
        from PIL import Image

        pixels = array[..., 0] if array.shape[2:] == (1,) else array
        return of_picture(Image.fromarray(pixels.numpy()), shape, values)
    raise ValueError(
        f"images of {tuple(array.shape)}, {array.dtype}, are no images of {shape}: (channels, "
        "height, width); pictures of another size must be in bytes (uint8), (height, width, 3)"
    )


def of_picture(
    picture: Any, shape: tuple[int, int, int], values: tuple[float, float] | None
) -> Tensor:
    """Return the pixels of a Pillow image, (c, h, w), on the scale of the data."""
    channels, height, width = shape
    if channels not in (1, 3) or values is None or values[0] < 0:
        raise ValueError(
            f"what the network's {channels} channels and their values are in a picture is not "
            "known; give an array of images as they were in the data"
        )
    pixels = fitted(picture, height, width, "L" if channels == 1 else "RGB")
    array = torch.frombuffer(bytearray(pixels.tobytes()), dtype=torch.uint8)
    array = array.view(height, width, channels).movedim(-1, 0)
    return array if values[1] == 255 else array * (values[1] / 255)
