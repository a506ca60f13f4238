"""Train the demo checkpoint: CTC alone first, then CTC and RNN-T together. Resumable.

python train.py build/demo_data build/demo_run --steps 4000 --ctc-steps 1500
"""

from __future__ import annotations

import argparse
import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jiwer
import torch
import torch.nn.functional as F
from data import Batch, Clips, Sentence, load_sentences
from rnnt_loss import rnnt_loss
from tokenizer import NUM_PIECES, make_tokenizer, save_tokenizer
from torch import nn

from nemotron_asr.config import LOOKAHEADS, EncoderConfig, FeatureConfig, ModelConfig
from nemotron_asr.decoding import greedy_decode
from nemotron_asr.features import LogMel
from nemotron_asr.model import NemotronAsr

BLANK = NUM_PIECES
MEL_MEAN, MEL_STD = -12.4, 3.5  # over all bands of the augmented training clips
NUM_MEL = 80


def demo_config() -> ModelConfig:
    """The published architecture at a hundredth of its size."""
    encoder = EncoderConfig(
        hidden_size=144,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        intermediate_size=576,
        num_mel_bins=NUM_MEL,
        subsampling_conv_channels=32,
    )
    return ModelConfig(
        encoder=encoder,
        features=FeatureConfig(feature_size=NUM_MEL),
        vocab_size=NUM_PIECES + 1,
        blank_token_id=BLANK,
        decoder_hidden_size=160,
        num_decoder_layers=1,
        prompt_intermediate_size=192,
    )


class NormalisingConv(nn.Conv2d):
    """A first convolution that learns on (mel - mean) / std, and folds both into its weights.

    Zeros that pad the mel stay zeros of the mel, so that what is exported computes the same.
    """

    def folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        weight = self.weight / MEL_STD
        return weight, self.bias - MEL_MEAN * weight.sum((1, 2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, *self.folded(), self.stride)


class Trainee(nn.Module):
    """The model and a CTC head that the checkpoint leaves out."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.net = NemotronAsr(config)
        self.net.encoder.subsampling.conv_in = NormalisingConv(
            1, config.encoder.subsampling_conv_channels, 3, stride=2
        )
        self.ctc_head = nn.Linear(config.decoder_hidden_size, config.vocab_size)

    @torch.no_grad()
    def scale_stages(self, batch: Batch) -> None:
        """Give what enters the layers and the joint unit variance over time and zero mean.

        Without this the initial encoder hardly varies over time, and CTC stays on a plateau.
        """
        net = self.net
        convs = net.encoder.subsampling
        net.prompt_projector.linear_1.weight *= 3
        pointwise = [stage.pointwise_conv for stage in convs.layers]
        centred = [convs.linear, net.prompt_projector.linear_2, net.encoder_projector]
        for layer in (convs.conv_in, *pointwise, *centred):
            seen = []
            hook = layer.register_forward_hook(lambda *args, seen=seen: seen.append(args[2]))
            net.encode(batch.mel, batch.num_mel, batch.prompt_ids, 3)
            hook.remove()
            std = seen[0].std(1 if layer in centred else 2).mean()
            layer.weight /= std
            layer.bias /= std
            if layer in centred:
                layer.bias -= seen[0].mean((0, 1)) / std

    def start_rnnt(self) -> None:
        """Let the joint begin as the CTC head, which already hears, with a silent prediction."""
        self.net.joint.head.load_state_dict(self.ctc_head.state_dict())
        nn.init.normal_(self.net.decoder.decoder_projector.weight, std=0.02)
        nn.init.zeros_(self.net.decoder.decoder_projector.bias)

    def losses(self, batch: Batch, lookahead: int, with_rnnt: bool) -> tuple[torch.Tensor, ...]:
        """CTC and RNN-T loss per target token; for an easy batch CTC and frame cross-entropy."""
        f, lens = self.net.encode(batch.mel, batch.num_mel, batch.prompt_ids, lookahead)
        f = f.float()
        num_tokens = batch.num_targets.sum()
        log_probs = self.ctc_head(F.relu(f)).float().log_softmax(-1).transpose(0, 1)
        ctc = F.ctc_loss(
            log_probs, batch.targets, lens, batch.num_targets, BLANK, "sum", zero_infinity=True
        )
        if batch.frames is not None:
            guess = batch.frames.masked_fill(batch.frames < 0, BLANK)
            return ctc / num_tokens, F.nll_loss(log_probs.permute(1, 2, 0), guess)
        if not with_rnnt:
            return ctc / num_tokens, torch.zeros(())
        start = torch.full((len(batch.texts), 1), BLANK)
        g = self.net.prediction(torch.cat([start, batch.targets], dim=1))
        f = f[:, : int(lens.max())]
        logits = self.net.joint(f[:, :, None], g[:, None]).float()  # (B, E, U + 1, V)
        rnnt = rnnt_loss(logits, batch.targets, lens, batch.num_targets, BLANK)
        return ctc / num_tokens, rnnt.sum() / num_tokens


def normalise(text: str) -> str:
    """Lower case without tags and marks."""
    text = text.replace("<en-US>", " ").lower()
    return " ".join("".join(c for c in text if c.isalpha() or c in " '").split())


@torch.no_grad()
def transcribe(model: Trainee, batch: Batch, lookahead: int, tokenizer, ctc: bool) -> list[str]:
    """Greedy texts, of the CTC head or of the RNN-T."""
    f, lens = model.net.encode(batch.mel, batch.num_mel, batch.prompt_ids, lookahead)
    if ctc:
        best = model.ctc_head(F.relu(f)).argmax(-1)
        rows = [row[:n].unique_consecutive().tolist() for row, n in zip(best, lens, strict=True)]
        rows = [[i for i in row if i != BLANK] for row in rows]
    else:
        fresh = model.net.decoder.fresh(len(lens))
        tokens, _ = greedy_decode(model.net, f, lens.tolist(), [0] * len(lens), fresh)
        rows = [[token.id for token in row] for row in tokens]
    return [tokenizer.decode(row, skip_special_tokens=True) for row in rows]


def word_error_rate(
    model: Trainee, clips: Clips, sentences: list[Sentence], lookahead: int, tokenizer, ctc=False
) -> tuple[float, list[tuple[str, str]]]:
    """WER in percent, and (reference, hypothesis) pairs."""
    model.eval()
    pairs = []
    for i in range(0, len(sentences), 40):
        batch = clips.plain(sentences[i : i + 40])
        pairs += zip(batch.texts, transcribe(model, batch, lookahead, tokenizer, ctc), strict=True)
    model.train()
    references, texts = ([normalise(text) for text in side] for side in zip(*pairs, strict=True))
    return 100 * jiwer.wer(list(references), list(texts)), pairs


def learning_rate(step: int, args: argparse.Namespace) -> float:
    """Linear warm-up over 200 steps, then half a cosine down to a fiftieth."""
    warm = min(1.0, (step + 1) / 200)
    return args.lr * warm * (0.51 + 0.49 * math.cos(math.pi * min(1.0, step / args.steps)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?", default=Path("build/demo_data"))
    parser.add_argument("run", type=Path, nargs="?", default=Path("build/demo_run"))
    parser.add_argument("--steps", type=int, default=3150)
    parser.add_argument("--ctc-steps", type=int, default=1150, help="steps before RNN-T")
    parser.add_argument("--easy-steps", type=int, default=1000, help="steps on clean sentences")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch-seconds", type=float, default=50.0)
    parser.add_argument("--bf16", action="store_true", help="autocast, where the CPU has it")
    parser.add_argument("--log-every", type=int, default=25)
    parser.add_argument("--eval-every", type=int, default=250)
    args = parser.parse_args()
    args.run.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    save_tokenizer(tokenizer, args.run)
    parts = load_sentences(args.data, tokenizer)
    print({name: len(sentences) for name, sentences in parts.items()}, flush=True)
    config = demo_config()
    model = Trainee(config)
    front_end = LogMel(config.features)
    print(f"{sum(p.numel() for p in model.net.parameters()):,} parameters", flush=True)
    decay = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}],
        betas=(0.9, 0.98),
    )
    first, spent, file = 0, 0.0, args.run / "last.pt"
    if file.exists():
        saved = torch.load(file)
        first, spent = saved["step"], saved["seconds"]
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
    clips = Clips(front_end, seed=first)
    if first == 0:
        model.scale_stages(clips.batch(parts["train"], args.batch_seconds))
    worker = ThreadPoolExecutor(1)  # the next batch is made while a step runs

    def make_batch() -> Batch:
        at = made.pop()
        pool = one_engine if at < args.easy_steps // 2 else parts["train"]
        return clips.batch(pool, args.batch_seconds, easy=at < args.easy_steps)

    one_engine = [s for s in parts["train"] if s.engine == "pico"]
    made = list(range(args.steps, first - 1, -1))  # the steps to come, the next one last
    coming = worker.submit(make_batch)
    lookaheads = torch.Generator().manual_seed(first)
    begin, totals = time.time() - spent, []
    for step in range(first, args.steps):
        if step == args.ctc_steps:
            model.start_rnnt()
        with_rnnt = step >= args.ctc_steps
        batch, coming = coming.result(), worker.submit(make_batch)
        choices = LOOKAHEADS[-2:] if step < args.easy_steps else LOOKAHEADS
        lookahead = choices[int(torch.randint(len(choices), (), generator=lookaheads))]
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            ctc, rnnt = model.losses(batch, lookahead, with_rnnt)
        plain_ctc = batch.frames is None and not with_rnnt
        loss = ctc if plain_ctc else 0.3 * ctc + rnnt
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args)
        if norm.isfinite():
            optimizer.step()
        totals.append((ctc.item(), rnnt.item(), norm.item()))
        if (step + 1) % args.log_every == 0:
            ctc, rnnt, norm = (sum(x) / len(totals) for x in zip(*totals, strict=True))
            seconds, totals = time.time() - begin, []
            print(f"step {step + 1} {seconds:.0f} s  ctc {ctc:.3f}  rnnt {rnnt:.3f}  "
                  f"norm {norm:.2f}", flush=True)  # fmt: skip
        if (step + 1) % args.eval_every == 0 or step + 1 == args.steps:
            report(model, Clips(front_end, 0), parts, tokenizer, ctc=not with_rnnt)
            torch.save({"step": step + 1, "seconds": time.time() - begin,
                        "model": model.state_dict(), "optimizer": optimizer.state_dict()},
                       file)  # fmt: skip


def report(model: Trainee, clips: Clips, parts: dict, tokenizer, ctc: bool) -> None:
    """Print WER on a sample of unheard texts and voices, and two transcripts."""
    for part in ("text", "voice"):
        sentences = parts[part][:: max(1, len(parts[part]) // 120)]
        wer, pairs = word_error_rate(model, clips, sentences, 6, tokenizer, ctc)
        print(f"  WER {part} {wer:.1f}%  {'CTC' if ctc else 'RNN-T'}  {pairs[7]}", flush=True)


if __name__ == "__main__":
    main()
