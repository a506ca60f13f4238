"""The training loss against a sum over all alignments and against numeric gradients."""

import itertools
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "scripts" / "demo_checkpoint"))
from alignment import first_symbols, spoken_before
from rnnt_loss import pruned_rnnt_loss, rnnt_loss

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


def joint_of(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.nn.Linear]:
    torch.manual_seed(seed)
    f, g = torch.randn(4, 5, 6, requires_grad=True), torch.randn(4, 4, 6, requires_grad=True)
    return f, g, torch.nn.Linear(6, BLANK + 1)


@pytest.mark.parametrize("num_symbols", [4, 7])
def test_pruned_loss_equals_the_whole_one_where_nothing_is_pruned(lattice, num_symbols):
    _, targets, num_frames, num_targets = lattice
    f, g, head = joint_of(1)
    lengths = (targets, num_frames, num_targets)
    first = torch.zeros(4, 5, dtype=torch.int64)
    pruned = pruned_rnnt_loss(f, g, head, *lengths, first, num_symbols, torch.float32)
    logits = head(torch.relu(f[:, :, None] + g[:, None]))
    whole = rnnt_loss(logits, *lengths, BLANK)
    torch.testing.assert_close(pruned, whole)
    inputs = [f, g, *head.parameters()]
    for a, b in zip(
        torch.autograd.grad(pruned.sum(), inputs),
        torch.autograd.grad(whole.sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_pruned_loss_sums_the_alignments_near_the_given_one():
    f, g, head = joint_of(2)
    target, T, window = [0, 2, 1], 5, 2
    first = [0, 0, 1, 1, 2]  # tokens spoken in frame t: this many or one more
    log_probs = head(torch.relu(f[0, :, None] + g[0, None])).log_softmax(-1)
    paths = []
    for counts in itertools.product(range(4), repeat=T):  # tokens spoken at the end of each frame
        if list(counts) != sorted(counts) or counts[-1] != 3:
            continue
        total, u, allowed = torch.zeros(()), 0, True
        for t, count in enumerate(counts):
            allowed &= first[t] <= u and count < first[t] + window
            for spoken in range(u, count):
                total = total + log_probs[t, spoken, target[spoken]]
            u = count
            total = total + log_probs[t, u, BLANK]
        if allowed:
            paths.append(total)
    assert len(paths) > 1
    lengths = (torch.tensor([target]), torch.tensor([T]), torch.tensor([3]))
    first = torch.tensor([first])
    loss = pruned_rnnt_loss(f[:1], g[:1], head, *lengths, first, window, torch.float32)
    torch.testing.assert_close(loss[0], -torch.stack(paths).logsumexp(0))


def test_an_alignment_that_cannot_be_costs_nothing():
    f, g, head = joint_of(3)
    lengths = (torch.tensor([[0, 2, 1]]), torch.tensor([5]), torch.tensor([3]))
    first = torch.full((1, 5), 2)  # never at the beginning
    loss = pruned_rnnt_loss(f[:1], g[:1], head, *lengths, first, 2, torch.float32)
    loss.sum().backward()
    assert loss.item() == 0.0
    assert f.grad.abs().max() == 0


def best_ctc_path(log_probs: torch.Tensor, target: list[int]) -> float:
    """The largest log-probability of all frame labellings that collapse to the target."""
    best = -float("inf")
    for path in itertools.product(range(BLANK + 1), repeat=len(log_probs)):
        collapsed = [k for k, _ in itertools.groupby(path) if k != BLANK]
        if collapsed == target:
            best = max(best, sum(log_probs[t, k].item() for t, k in enumerate(path)))
    return best


@pytest.mark.parametrize("target", [[0, 2, 1], [1, 1], [3], []])
def test_alignment_is_that_of_the_best_path(target):
    torch.manual_seed(len(target))
    log_probs = torch.randn(1, 6, BLANK + 1).log_softmax(-1)
    padded = torch.tensor([target + [0] * (3 - len(target))])
    spoken = spoken_before(log_probs, padded, torch.tensor([5]), torch.tensor([len(target)]))[0]
    assert len(spoken) == 6
    assert spoken[-1] == len(target)
    steps = spoken.diff(prepend=torch.zeros(1, dtype=torch.int64))
    assert set(steps.tolist()) <= {0, 1}
    # Between two tokens' first frames each frame holds the token or blank, whichever fits better.
    total, last = 0.0, None
    for t in range(5):
        k = target[spoken[t] - 1] if spoken[t] else BLANK
        if steps[t]:
            total, last = total + log_probs[0, t, k].item(), k
        else:
            stay = log_probs[0, t, k].item() if last == k else -float("inf")
            blank = log_probs[0, t, BLANK].item()
            total, last = total + max(stay, blank), (k if stay > blank else BLANK)
    assert total <= best_ctc_path(log_probs[0, :5], target) + 1e-4


def test_windows_hold_the_alignment_and_both_ends():
    spoken = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 2, 2, 2, 2, 2, 2, 2, 2]])
    first = first_symbols(spoken, torch.tensor([9, 2]), 4)
    assert (first[:, 0] == 0).all()
    assert first[:, -1].tolist() == [6, 0]
    assert ((first <= spoken) & (spoken < first + 4)).all()
