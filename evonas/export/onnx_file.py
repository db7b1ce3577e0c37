"""An ONNX file of a network, which says what it takes, and is checked against torch."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evonas import files
from evonas.core import SearchFailed, UserError
from evonas.export.described import classes, described
from evonas.export.images import on_scale

TOLERANCE = 1e-4  # relative and absolute, of the file's logits against torch's

log = logging.getLogger("evonas")


class _Normalising(nn.Module):
    """A network that puts its images on the scale of the data, and normalises them."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, about: Mapping[str, Any]) -> None:
        super().__init__()
        self.network = network
        self.values = about["values"]
        self.register_buffer("mean", torch.tensor(about["mean"]).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(about["std"]).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        images = on_scale(images, self.values)
        logits: Tensor = self.network((images - self.mean) / self.std)
        return logits


def write_onnx(network: nn.Module, about: Mapping[str, Any], out: Path) -> None:
    """Write an ONNX file, whole or not at all, that takes images as they are in the data.

    Args:
        about: as `network.TrainedNetwork` has it.

    Raises:
        UserError: the network cannot be written as ONNX.
        SearchFailed: the file's logits differ from torch's.
    """
    whole = _Normalising(network, about).eval()
    samples = [_sample(n, about) for n in (2, 5)]
    try:
        with _quiet():
            content = _as_onnx(whole, samples[0], about)
            found = [_run_onnx(content, images) for images in samples]
    except Exception as error:  # torch and onnxruntime may raise anything
        log.debug("not written as ONNX", exc_info=True)
        problem, hint = _told(error)
        raise UserError(
            f"the network cannot be written as ONNX: {problem}",
            hint=f"{hint}take it away as it is, with --format python",
            key="--format onnx",
        ) from None
    with torch.no_grad():
        expected = [whole(images).numpy() for images in samples]
    if not all(map(np.allclose, found, expected, [TOLERANCE] * 2, [TOLERANCE] * 2)):
        worst = max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))
        raise SearchFailed(f"the ONNX file's logits differ from torch's by up to {worst:.2g}")
    files.write_atomic(out, content)


def _sample(count: int, about: Mapping[str, Any]) -> Tensor:
    """Return images with values as in the data."""
    low, high = about["values"] or (0, 255)
    generator = torch.Generator().manual_seed(count)
    return low + (high - low) * torch.rand(count, *about["image_shape"], generator=generator)


def _as_onnx(whole: nn.Module, images: Tensor, about: Mapping[str, Any]) -> bytes:
    program = torch.onnx.export(
        whole,
        (images,),
        dynamo=True,
        verbose=False,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("n")},),
    )
    assert program is not None
    program.model.metadata_props.update(
        {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in about.items()
        }
    )
    program.model.doc_string = "\n".join([*described(about), classes(about)])
    content: bytes = program.model_proto.SerializeToString()
    return content


def _run_onnx(content: bytes, images: Tensor) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised as well
    session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    [logits] = session.run(None, {"images": images.numpy()})
    return logits


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps off the screen what torch and onnxruntime print, warn and log about themselves."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _told(error: BaseException) -> tuple[str, str]:
    """Return what the error that was there first says, in a line, and what may be done."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error)
    at = re.search(r'File "([^"]+)", line (\d+), in \w+\n *(\S.*)', text)
    where = f" ({Path(at[1]).name}, line {at[2]}: {at[3]})" if at else ""
    if "data-dependent" in text:
        problem = f"its code decides by the values of a tensor{where}"
        return problem, "use torch.where instead of if and while, or "
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *lines[:1]]) + where, ""
