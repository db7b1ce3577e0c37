"""A picture as networks take it: upright, in bytes, scaled and cropped to one size.

An exported file holds these functions as they stand here, so they need nothing of evonas, and
import what else they need only when they are called.
"""

from __future__ import annotations

from typing import Any

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # none starts a program, unlike EPS


def fitted(picture: Any, height: int, width: int, mode: str) -> Any:
    """Return the middle of a picture, upright, in bytes, `width` by `height` pixels.

    Args:
        picture: a Pillow image, which may be an opened file.
        mode: Pillow's word for the colours, `L` or `RGB`. Transparency turns white.

    Raises:
        ValueError: its pixels cannot be told in bytes.
    """
    from PIL import Image, ImageOps

    picture.draft(None, (2 * width, 2 * height))  # a JPEG far larger is not read in full
    upright = in_bytes(ImageOps.exif_transpose(picture), mode)
    return ImageOps.fit(upright, (width, height), Image.Resampling.BILINEAR)


def in_bytes(picture: Any, mode: str) -> Any:
    """Return a picture of any mode in bytes, grey or colour; raises as `fitted` does."""
    from PIL import Image

    if picture.mode == "F":
        raise ValueError("its pixels are floats")
    if picture.mode.startswith("I"):  # 16 bits in 16 or 32; Pillow keeps colours' high byte
        import numpy as np

        values = np.asarray(picture)
        if values.min() < 0 or values.max() >= 2**16:
            raise ValueError("its pixels have more than 16 bits")
        if 0 < values.max() < 2**12:  # bytes, or a camera's 12 bits: little of them would be left
            raise ValueError(f"its pixels have 16 bits or more, but none is above {values.max()}")
        picture = Image.fromarray((values >> 8).astype(np.uint8))
    elif picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert(mode)
