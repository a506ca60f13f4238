"""Layers for inference compute what the layers for training do, each row by itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nemotron_asr.layers import (
    ACTIVATIONS,
    DepthwiseConv,
    Int8Linear,
    Linear,
    PackedLinear,
    fastest,
    fastest_linear,
    packs,
)

# Of the largest output: what rounding the weights and inputs may cost.
TOLERANCE = {"float32": 1e-6, "bfloat16": 0.02, "int8": 0.02}
ROWS = (1, 2, 4, 7, 8, 14, 33, 56, 112)

has_packing = packs(torch.zeros(1, dtype=torch.bfloat16))
needs_int8 = pytest.mark.skipif(not Int8Linear.is_supported(), reason="this CPU has no VNNI")
INT8 = pytest.param("int8", marks=needs_int8)


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(112, 512)


def computed(layer, x, **kwargs):
    weights = getattr(layer, "weight", None)
    dtype = torch.bfloat16 if weights.dtype == torch.bfloat16 else torch.float32
    kwargs = {k: v.to(dtype) if torch.is_tensor(v) else v for k, v in kwargs.items()}
    return layer(x.to(dtype), **kwargs).float()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", INT8])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("follow", ["nothing", "silu", "relu", "residual"])
def test_the_fastest_layer_computes_the_same(x, dtype, bias, follow):
    layer = Linear(512, 640, bias, scale=1.0 if follow in ACTIVATIONS else 0.5)
    layer.requires_grad_(False)
    kwargs = {"activation": follow} if follow in ACTIVATIONS else {}
    expected = F.linear(x, layer.weight, layer.bias) * layer.scale
    if follow in ACTIVATIONS:
        expected = getattr(F, follow)(expected)
    if follow == "residual":
        kwargs["residual"] = torch.randn(112, 640)
        expected = kwargs["residual"] + expected
        torch.testing.assert_close(layer(x, **kwargs), expected)
    out = computed(fastest_linear([layer], dtype), x, **kwargs)
    assert (out - expected).abs().max() < TOLERANCE[dtype] * expected.abs().max()


@pytest.mark.parametrize("dtype", ["bfloat16", INT8])
def test_a_row_does_not_depend_on_how_many_there_are(x, dtype):
    if dtype == "bfloat16" and not has_packing:
        pytest.skip("oneDNN has no bfloat16 on this machine")
    layer = fastest(torch.randn(640, 512), None, dtype)
    x = x.to(torch.bfloat16) if dtype == "bfloat16" else x
    for rows in ROWS:
        assert torch.equal(layer(x[:rows]), layer(x)[:rows])
        assert torch.equal(layer(x[-rows:]), layer(x)[-rows:])


@needs_int8
def test_int8_sums_are_exact(x):
    weight = torch.randn(640, 512)
    rows, columns = (t.abs().amax(1, keepdim=True) / 127 for t in (x, weight))
    exact = (x / rows).round().double() @ (weight / columns).round().double().T
    expected = exact * rows * columns.T
    torch.testing.assert_close(
        fastest(weight, None, "int8")(x).double(), expected, rtol=1e-6, atol=1e-5
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", INT8])
def test_no_layer_takes_a_reference_implementation(dtype):
    """What oneDNN has no fast code for takes hundreds of times as long."""
    if dtype == "bfloat16" and not has_packing:
        pytest.skip("oneDNN has no bfloat16 on this machine")
    script = (
        "import torch\n"
        "from nemotron_asr.layers import compute_dtype, fastest\n"
        f"layer = fastest(torch.randn(640, 512), torch.randn(640), {dtype!r})\n"
        "for rows in (1, 4, 112):\n"
        f"    layer(torch.randn(rows, 512).to(compute_dtype({dtype!r})))\n"
    )
    env = {**os.environ, "ONEDNN_VERBOSE": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    products = re.findall(r"exec,cpu,(?:matmul|inner_product),([^,]+)", done.stdout)
    assert len(products) == 3, done.stderr
    assert not [name for name in products if name.startswith("ref")], products


def test_layers_side_by_side_are_one(x):
    layers = [Linear(512, n).requires_grad_(False) for n in (64, 32, 32)]
    together = fastest_linear(layers, "float32")(x)
    torch.testing.assert_close(together, torch.cat([layer(x) for layer in layers], dim=-1))


def test_large_float32_layers_are_packed():
    assert isinstance(fastest(torch.zeros(512, 512), None, "float32"), PackedLinear) == packs(
        torch.zeros(1)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
def test_depthwise_convolution(dtype, bias):
    conv = nn.Conv1d(64, 64, 9, groups=64, bias=bias).to(dtype).requires_grad_(False)
    for shape in ((1, 12, 64), (3, 22, 64), (2, 120, 64)):
        x = torch.randn(shape).to(dtype)
        expected = conv(x.transpose(1, 2)).transpose(1, 2)
        torch.testing.assert_close(
            DepthwiseConv(conv.weight, conv.bias)(x), expected, atol=0.02, rtol=0.02
        )


def test_weights_lie_on_huge_pages():
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.exists() or "[never]" in setting.read_text():
        pytest.skip("this kernel has none")
    script = (
        "import torch, nemotron_asr\n"
        "weight = torch.zeros(1 << 26, dtype=torch.uint8)\n"
        "print(open('/proc/self/smaps_rollup').read())\n"
    )
    env = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    huge_kb = int(re.search(r"AnonHugePages: +(\d+) kB", done.stdout)[1])
    assert huge_kb > (1 << 15), done.stdout  # at least half: memory may be in pieces
