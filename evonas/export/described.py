"""What a user should know of an exported network: what it takes, what it answers, and how well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SHOWN = 20  # class names in a message


def described(about: Mapping[str, Any]) -> list[str]:
    """Return lines that say what a network takes, what it answers, and how well."""
    channels, height, width = about["image_shape"]
    lines = [f"images: {channels} x {height} x {width} (channels, height, width)"]
    values = about["values"]
    if values is None:
        lines[0] += ", with the values that they have in the data"
    else:
        low, high = values
        lines[0] += f", values {low:.4g} to {high:.4g} as in the data"
        others = [each for each in (1, 255) if each == 1 < high or each == 255 > 2 * high]
        if low >= 0 and others:
            lines[0] += f"; also {' or '.join(f'0 to {other}' for other in others)}"
        elif low < 0:
            lines[0] += ", and no others"
    lines[0] += "; they are normalised within"
    if "accuracy" in about:
        lines.append(f"accuracy: {about['accuracy']:.4f} on the {about['accuracy_on']}")
    else:
        lines.append("accuracy: not on record")
    return lines


def classes(about: Mapping[str, Any]) -> str:
    """Return a line with the names of the classes, without what could move a terminal's cursor."""
    names = about["class_names"]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    listed = ", ".join(names[:SHOWN])
    return "classes: " + "".join(c if c.isprintable() else "?" for c in listed) + more


def example(about: Mapping[str, Any]) -> str:
    """Return a call of the exported `predict`, with a picture if the network can take one."""
    values, channels = about["values"], about["image_shape"][0]
    pictures = values is not None and values[0] >= 0 and channels in (1, 3)
    return 'predict("picture.png")' if pictures else "predict(images)"
