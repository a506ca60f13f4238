"""The training loss against a sum over all alignments and against numeric gradients."""

import importlib.util
import itertools
from pathlib import Path

import pytest
import torch

PATH = Path(__file__).parents[2] / "scripts" / "demo_checkpoint" / "rnnt_loss.py"
spec = importlib.util.spec_from_file_location("rnnt_loss", PATH)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
rnnt_loss = module.rnnt_loss

BLANK = 4


def brute_force(logits: torch.Tensor, target: list[int]) -> torch.Tensor:
    """logits: (T, U + 1, V).  The sum over every order of T - 1 blanks and U labels."""
    T, U = logits.shape[0], len(target)
    log_probs = logits.log_softmax(-1)
    paths = []
    for emits in itertools.combinations(range(T - 1 + U), U):
        t = u = 0
        total = torch.zeros((), dtype=logits.dtype)
        for step in range(T - 1 + U):
            if step in emits:
                total = total + log_probs[t, u, target[u]]
                u += 1
            else:
                total = total + log_probs[t, u, BLANK]
                t += 1
        paths.append(total + log_probs[t, u, BLANK])
    return -torch.stack(paths).logsumexp(0)


@pytest.fixture
def lattice():
    torch.manual_seed(0)
    logits = torch.randn(4, 5, 4, 5) * 2
    targets = torch.randint(0, BLANK, (4, 3))
    return logits, targets, torch.tensor([5, 3, 1, 4]), torch.tensor([3, 1, 2, 0])


def test_equals_the_sum_over_all_alignments(lattice):
    logits, targets, num_frames, num_targets = lattice
    loss = rnnt_loss(logits, targets, num_frames, num_targets, BLANK)
    for b in range(4):
        T, U = int(num_frames[b]), int(num_targets[b])
        expected = brute_force(logits[b, :T, : U + 1], targets[b, :U].tolist())
        torch.testing.assert_close(loss[b], expected)


def test_gradient_equals_that_of_the_sum(lattice):
    logits, targets, num_frames, num_targets = lattice
    logits.requires_grad_(True)
    rnnt_loss(logits, targets, num_frames, num_targets, BLANK).sum().backward()
    got, logits.grad = logits.grad, None
    for b in range(4):
        T, U = int(num_frames[b]), int(num_targets[b])
        brute_force(logits[b, :T, : U + 1], targets[b, :U].tolist()).backward()
    torch.testing.assert_close(got, logits.grad, atol=1e-6, rtol=1e-4)


def test_gradient_equals_finite_differences(lattice):
    logits, *rest = lattice
    logits.requires_grad_(True)
    rnnt_loss(logits, *rest, BLANK).sum().backward()
    step = 1e-2
    for index in [(0, 0, 0, BLANK), (0, 2, 1, 2), (1, 1, 1, 0), (2, 0, 2, BLANK), (3, 3, 0, 1)]:
        shifted = []
        for sign in (1, -1):
            moved = logits.detach().clone()
            moved[index] += sign * step
            shifted.append(rnnt_loss(moved, *rest, BLANK).sum())
        numeric = (shifted[0] - shifted[1]) / (2 * step)
        torch.testing.assert_close(logits.grad[index], numeric, atol=1e-3, rtol=1e-2)


def test_padding_gets_no_gradient(lattice):
    logits, targets, num_frames, num_targets = lattice
    logits.requires_grad_(True)
    rnnt_loss(logits, targets, num_frames, num_targets, BLANK).sum().backward()
    assert logits.grad[1, 3:].abs().max() == 0
    assert logits.grad[1, :, 2:].abs().max() == 0
