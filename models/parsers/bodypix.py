"""BodyPix: Google's human parser of 24 parts, from an ONNX file, under onnxruntime.

    parser = load_bodypix("MobileNetV1-x050-stride8.onnx", to_parts8=matrix, height=128, width=64)

BodyPix 2 on MobileNetV1 (https://github.com/tensorflow/tfjs-models/tree/master/body-pix, Apache-2.0). It has two heads:
whether a pixel is a person, and which of 24 parts it would be. The parts are DensePose's surface without u,v. onnx
mends the graph and onnxruntime runs it on the CPU; both are imported only when a parser is loaded.

B images of H x W; the network's input is h x w, both 16 n + 1, its output, at stride 8, has the first and last pixels
of the input at its corners.
"""

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# The label of DensePose-24 (pipeline/base/body_parts.py) of each of BodyPix's parts, in BodyPix's order and names. Left
# is the person's own left in both. What BodyPix calls the front of an arm is what DensePose's labels 17, 18, 21 and 22
# cover, seen on a photograph with both parses (docs/parsers.md), so that arms look exchanged here.
PARTS = {"left face": 24, "right face": 23,
         "left upper arm front": 17, "left upper arm back": 15, "right upper arm front": 18, "right upper arm back": 16,
         "left lower arm front": 21, "left lower arm back": 19, "right lower arm front": 22, "right lower arm back": 20,
         "left hand": 4, "right hand": 3, "torso front": 2, "torso back": 1,
         "left upper leg front": 10, "left upper leg back": 8, "right upper leg front": 9, "right upper leg back": 7,
         "left lower leg front": 14, "left lower leg back": 12, "right lower leg front": 13, "right lower leg back": 11,
         "left foot": 5, "right foot": 6}
INPUT, OUTPUTS = "input", {"segments": 1, "part_heatmaps": 24}  # the heads that are read, and their channels
ROWS, COLUMNS = "height", "width"  # names of the graph's free dimensions


class BodyPix:
    """Called as models/parsers/torchvision_parsers.py's `Parser.parse`.

    session: onnxruntime's, with a free batch dimension; to_parts8: (8, 25) ones and zeros; height, width: pixels of the
    images and of what is returned; side: pixels of the longer side of the network's input; border: what is put around
    an image before it is resized to that, on each side, as a share of the image's height or width.
    """

    taxonomy, uv = "densepose24", False

    def __init__(self, *, session: Any, to_parts8: Tensor, height: int, width: int, side: int = 257,
                 border: float = 0.1) -> None:
        if side < 33 or side % 16 != 1:
            lower = max(33, (side - 1) // 16 * 16 + 1)
            raise ValueError(f"BodyPix's `side`, pixels of the longer side of its input, is {side} and has to be "
                             f"16 n + 1, at least 33; choose {lower} or {lower + 16}")
        self.session, self.height, self.width = session, height, width
        self.border = (int(height * border + 0.5), int(width * border + 0.5))

        padded = (height + 2 * self.border[0], width + 2 * self.border[1])
        self.input = tuple(max(33, round((length * side / max(padded) - 1) / 16) * 16 + 1) for length in padded)
        self.to_native = torch.tensor(list(PARTS.values()), dtype=torch.uint8)  # (24,)
        self.to_parts8 = to_parts8.float()[:, self.to_native.long()]  # (8, 24)
        self.grid = torch.stack(torch.meshgrid(*(_places(length, edge, whole, pixels) for length, edge, whole, pixels in
                                                 zip((height, width), self.border, padded, self.input, strict=True)),
                                               indexing="ij")[::-1], -1)  # (H, W, 2): x, y

    @torch.inference_mode()
    def parse(self, images: Tensor) -> dict[str, Tensor]:
        """images (B,3,H,W) uint8 RGB at the parser's size -> `native` (B,H,W) uint8 DensePose-24, `parts8` (B,8,H,W)
        probabilities.

        The person's logit decides what is background (0.5 and less). A part's probability is the person's, times the
        part's among the 24: BodyPix learned each part by itself, and of independent parts, one of which it is, the
        softmax of their logits is what they are then. `native` is the best label of the best of the 8 parts.
        """
        if tuple(images.shape[-2:]) != (self.height, self.width):
            raise ValueError(f"the images are {images.shape[-2]}x{images.shape[-1]} and the parser's input is "
                             f"{self.height}x{self.width}; resize the images")

        logits = torch.cat([torch.from_numpy(head) for head in self.session.run(list(OUTPUTS), {
            INPUT: self._inputs(images)})], -1).permute(0, 3, 1, 2)  # (B, 1 + 24, h / 8, w / 8)
        grid = self.grid.expand(len(images), -1, -1, -1)
        logits = F.grid_sample(logits, grid, mode="bilinear", padding_mode="border", align_corners=True)

        person = logits[:, :1].sigmoid()  # (B, 1, H, W)
        parts = logits[:, 1:].softmax(1)  # (B, 24, H, W)
        parts8 = torch.einsum("gp,bphw->bghw", self.to_parts8, parts)  # (B, 24, H, W) -> (B, 8, H, W), no background
        best = self.to_parts8[parts8.argmax(1)].permute(0, 3, 1, 2)  # (B, 24, H, W): the parts of the best of the 8
        native = self.to_native[(parts * best).argmax(1)] * (person[:, 0] > 0.5)

        parts8 = parts8 * person
        parts8[:, :1] = 1 - person
        return {"native": native.to(images.device), "parts8": parts8.to(images.device)}

    def _inputs(self, images: Tensor) -> np.ndarray:
        """(B, 3, H, W) uint8 -> (B, h, w, 3) float32 in [-1, 1], replicated borders around each image."""
        vertical, horizontal = self.border
        pixels = F.pad(images.cpu().float(), (horizontal, horizontal, vertical, vertical), mode="replicate")
        pixels = F.interpolate(pixels, self.input, mode="bilinear", antialias=True)
        return (pixels / 127.5 - 1).permute(0, 2, 3, 1).contiguous().numpy()


def _places(length: int, border: int, padded: int, pixels: int) -> Tensor:
    """Where on the output an image's pixels lie along one axis, (length,) from -1, its first pixel, to 1, its last."""
    places = (torch.arange(length) + border + 0.5) * pixels / padded - 0.5  # pixels of the network's input
    return 2 * places / (pixels - 1) - 1


def load_bodypix(path: str | os.PathLike, *, to_parts8: Tensor, height: int, width: int, side: int = 257,
                 border: float = 0.1, threads: int = 1) -> BodyPix:
    """A parser from an ONNX file of BodyPix on MobileNetV1. ValueError names the file and the remedy."""
    name = os.fspath(path)
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError(_missing("onnxruntime", error)) from error

    model = read_graph(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds
        raise ValueError(_broken(name, error)) from error

    parser = BodyPix(session=session, to_parts8=to_parts8, height=height, width=width, side=side, border=border)
    try:
        heads = session.run(list(OUTPUTS), {INPUT: np.zeros((2, *parser.input, 3), np.float32)})
    except Exception as error:
        raise ValueError(_broken(name, error)) from error

    sizes = {head.shape[:3] for head in heads}
    if len(sizes) > 1 or sizes.pop()[0] != 2:
        raise ValueError(f"{name}: gives {' and '.join(str(head.shape) for head in heads)} for two pictures, and "
                         "BodyPix's heads have one size; name BodyPix's own ONNX file")
    return parser


def read_graph(path: str | os.PathLike) -> Any:
    """BodyPix's ONNX as onnxruntime takes it: an onnx.ModelProto with the two heads alone and free sizes.

    The published conversions have `auto_pad` SAME in dilated convolutions, which onnxruntime refuses: they get the pads
    that it means, dilation (kernel - 1) / 2 on each side at stride 1. Their constants stand among the inputs too, and
    their batch is 1. ValueError names the file and the remedy where it is damaged or another network.
    """
    name = os.fspath(path)
    try:
        import onnx
    except ImportError as error:
        raise ValueError(_missing("onnx", error)) from error

    try:
        model = onnx.load(name, load_external_data=False)
    except FileNotFoundError as error:
        raise ValueError(f"{name}: no such file; name BodyPix's ONNX as the cache's `source`") from error
    except Exception as error:  # protobuf's, or the system's
        raise ValueError(f"{name}: is damaged or no ONNX file ({' '.join(str(error).split())[:120]}); fetch BodyPix's "
                         "ONNX again") from error

    graph = model.graph
    constants = {constant.name: constant for constant in graph.initializer}
    inputs = [entry for entry in graph.input if entry.name not in constants]
    outputs = [entry for entry in graph.output if entry.name in OUTPUTS]
    expected = {INPUT: 3, **OUTPUTS}
    found = {entry.name: _channels(entry) for entry in (*inputs, *graph.output)}
    if [entry.name for entry in inputs] != [INPUT] or {key: found.get(key) for key in expected} != expected:
        raise ValueError(f"{name}: is another network than BodyPix: its inputs and outputs, with their channels, are "
                         f"{_listed(found) or 'none'}, and BodyPix has {_listed(expected)}; name BodyPix's ONNX")
    if not any(entry.name == "group" and entry.i > 1 for node in graph.node for entry in node.attribute):
        raise ValueError(f"{name}: has no depthwise convolution, so that it is not BodyPix on MobileNetV1 (the one on "
                         "ResNet-50 is fed otherwise); name one on MobileNetV1")

    for key, constant in constants.items():
        try:
            sound = bool(np.isfinite(onnx.numpy_helper.to_array(constant)).all())
        except Exception:  # of a length that is not its shape's, or outside the file
            sound = False
        if not sound:
            raise ValueError(f"{name}: its weights {key!r} are cut or hold values that are no numbers; fetch "
                             "BodyPix's ONNX again")

    _mend(onnx, graph, inputs, outputs)
    return model


def _mend(onnx: Any, graph: Any, inputs: list[Any], outputs: list[Any]) -> None:
    for entries, kept in ((graph.input, inputs), (graph.output, outputs)):
        del entries[:]
        entries.extend(kept)

    for entry in (*graph.input, *graph.output):  # copies of those
        for axis, free in enumerate(("batch", f"{entry.name} {ROWS}", f"{entry.name} {COLUMNS}")):
            entry.type.tensor_type.shape.dim[axis].dim_param = free

    for node in graph.node:
        told = {entry.name: entry for entry in node.attribute}
        dilations = list(told["dilations"].ints) if "dilations" in told else []
        if node.op_type == "Conv" and set(dilations) - {1} and "auto_pad" in told:
            pads = [dilation * (kernel - 1) // 2
                    for dilation, kernel in zip(dilations, told["kernel_shape"].ints, strict=True)]
            node.attribute.remove(told["auto_pad"])
            node.attribute.append(onnx.helper.make_attribute("pads", pads + pads))


def _channels(entry: Any) -> int:
    """Of the last of four axes, 0 where there are others."""
    axes = entry.type.tensor_type.shape.dim
    return axes[3].dim_value if len(axes) == 4 else 0


def _listed(channels: dict[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in list(channels.items())[:12])


def _broken(name: str, error: Exception) -> str:
    return (f"{name}: onnxruntime cannot run it ({' '.join(str(error).split())[:160]}); name BodyPix's own ONNX file, "
            "whole")


def _missing(package: str, error: ImportError) -> str:
    return f"{package} is not installed ({error}); run `pip install -r requirements-parsers.txt`"
