"""A tiny network with BodyPix's input and outputs, which labels by colour: what is where can be told without it."""

from pathlib import Path

import numpy as np

# Colours (each channel 0 or 255) and the number, in BodyPix's order, of the part that each becomes; black is nobody.
COLOURS = {(255, 0, 0): 0, (0, 255, 0): 2, (0, 0, 255): 9, (255, 255, 0): 13, (255, 0, 255): 14, (0, 255, 255): 20,
           (255, 255, 255): 22}


def tiny_bodypix(path: Path, *, kernel: np.ndarray | None = None, rename: dict[str, str] | None = None,
                 parts: int = 24, group: int = 3, person: float = 10) -> Path:
    """Write it, with what the published conversions have: constants among the inputs, a batch of one, and a dilated
    convolution that is padded by `auto_pad`.

    kernel: (3, 1, 3, 3) of that convolution, its centre 1 where nothing is said; rename: other names of input and
    outputs; parts: channels of the part head; group: of that convolution; person: how sure it is of persons.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    centre = np.zeros((3, 3 // group, 3, 3), np.float32)
    for channel in range(3):
        centre[channel, channel if group == 1 else 0, 1, 1] = 1
    weights = np.zeros((parts, 3, 1, 1), np.float32)
    bias = np.full(parts, -30, np.float32)
    for colour, part in COLOURS.items():
        weights[part, :, 0, 0] = 10 * (np.array(colour) / 127.5 - 1)
        bias[part] = 0
    constants = {"stem": np.eye(3, dtype=np.float32)[..., None, None], "dilated": centre if kernel is None else kernel,
                 "person": np.full((1, 3, 1, 1), person, np.float32), "part": weights, "part bias": bias,
                 "person bias": np.full(1, 1.5 * person, np.float32)}
    names = {name: (rename or {}).get(name, name) for name in ("input", "segments", "part_heatmaps", "heatmaps")}

    nodes = [helper.make_node("Transpose", [names["input"]], ["planes"], perm=[0, 3, 1, 2]),
             helper.make_node("Conv", ["planes", "stem"], ["small"], strides=[8, 8], kernel_shape=[1, 1]),
             helper.make_node("Conv", ["small", "dilated"], ["features"], dilations=[2, 2], kernel_shape=[3, 3],
                              group=group, auto_pad="SAME_UPPER"),
             helper.make_node("Conv", ["features", "person", "person bias"], ["one"], kernel_shape=[1, 1]),
             helper.make_node("Conv", ["features", "part", "part bias"], ["many"], kernel_shape=[1, 1]),
             helper.make_node("Transpose", ["one"], [names["segments"]], perm=[0, 2, 3, 1]),
             helper.make_node("Transpose", ["many"], [names["part_heatmaps"]], perm=[0, 2, 3, 1]),
             helper.make_node("Transpose", ["features"], [names["heatmaps"]], perm=[0, 2, 3, 1])]

    def entry(name: str, channels: int):
        return helper.make_tensor_value_info(names[name], TensorProto.FLOAT, [1, f"{name} h", f"{name} w", channels])

    initial = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    inputs = [entry("input", 3), *(helper.make_tensor_value_info(one.name, TensorProto.FLOAT, one.dims)
                                   for one in initial)]
    outputs = [entry("heatmaps", 3), entry("part_heatmaps", parts), entry("segments", 1)]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initial)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 8)], ir_version=4), str(path))
    return path
