"""What a checkpoint computes, in numpy, as its makers define it: the judge of conversions.

Written from the definitions of the models, in the layout of checkpoints: no GGUF, no llama.cpp.
"""

import math
from typing import Any

import numpy as np

from tests.make_checkpoint import Checkpoint


def logprobs(made: Checkpoint, tokens: list[int]) -> np.ndarray:
    """Return the log-probabilities of the token after ``tokens``, by token."""
    c, w = made.config, made.tensors
    gemma = c["model_type"].startswith("gemma")
    x = w["model.embed_tokens.weight"][tokens].astype(np.float64)
    if gemma:
        x = x * math.sqrt(c["hidden_size"])
    for n in range(c["num_hidden_layers"]):
        x = _layer(made, n, x, gemma=gemma)
    x = _rms(x[-1:], w["model.norm.weight"], c, gemma=gemma)
    head = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    logits = (x @ head.T.astype(np.float64))[0]
    if cap := c.get("final_logit_softcapping"):
        logits = cap * np.tanh(logits / cap)
    return logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()


def embedding(made: Checkpoint, tokens: list[int]) -> np.ndarray:
    """Return the vector of length 1 that a BERT that pools by the mean gives to ``tokens``."""
    c, w = made.config, made.tensors
    x = (
        w["embeddings.word_embeddings.weight"][tokens]
        + w["embeddings.position_embeddings.weight"][: len(tokens)]
        + w["embeddings.token_type_embeddings.weight"][0]
    ).astype(np.float64)
    x = _layer_norm(x, w, "embeddings.LayerNorm", c)
    heads = c["num_attention_heads"]
    for n in range(c["num_hidden_layers"]):
        stem = f"encoder.layer.{n}"
        q, k, v = (
            _affine(x, w, f"{stem}.attention.self.{part}").reshape(len(tokens), heads, -1)
            for part in ("query", "key", "value")
        )
        scores = np.einsum("ihd,jhd->hij", q, k) / math.sqrt(q.shape[-1])
        mixed = np.einsum("hij,jhd->ihd", _softmax(scores), v).reshape(len(tokens), -1)
        x = _layer_norm(
            x + _affine(mixed, w, f"{stem}.attention.output.dense"), w,
            f"{stem}.attention.output.LayerNorm", c,
        )  # fmt: skip
        inner = _affine(x, w, f"{stem}.intermediate.dense")
        inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        x = _layer_norm(
            x + _affine(inner, w, f"{stem}.output.dense"), w, f"{stem}.output.LayerNorm", c
        )
    mean = x.mean(axis=0)
    return mean / np.linalg.norm(mean)


def _layer(made: Checkpoint, n: int, x: np.ndarray, *, gemma: bool) -> np.ndarray:
    c, w, stem = made.config, made.tensors, f"model.layers.{n}"

    def rms(part: str, y: np.ndarray) -> np.ndarray:
        return _rms(y, w[f"{stem}.{part}.weight"], c, gemma=gemma)

    attended = _attention(made, n, rms("input_layernorm", x), gemma=gemma)
    if gemma:
        x = x + rms("post_attention_layernorm", attended)
        return x + rms("post_feedforward_layernorm",
                       _mlp(w, stem, rms("pre_feedforward_layernorm", x), gemma=True))  # fmt: skip
    x = x + attended
    return x + _mlp(w, stem, rms("post_attention_layernorm", x), gemma=False)


def _attention(made: Checkpoint, n: int, x: np.ndarray, *, gemma: bool) -> np.ndarray:
    c, w, stem = made.config, made.tensors, f"model.layers.{n}.self_attn"
    heads, kv = c["num_attention_heads"], c["num_key_value_heads"]
    width = c.get("head_dim") or c["hidden_size"] // heads
    length = len(x)
    q, k, v = (
        _affine(x, w, f"{stem}.{part}_proj").reshape(length, count, width)
        for part, count in (("q", heads), ("k", kv), ("v", kv))
    )
    if f"{stem}.q_norm.weight" in w:
        q = _rms(q, w[f"{stem}.q_norm.weight"], c, gemma=gemma)
        k = _rms(k, w[f"{stem}.k_norm.weight"], c, gemma=gemma)
    model = c["model_type"]
    local = (model == "gemma3_text" and (n + 1) % 6 != 0) or (model == "gemma2" and n % 2 == 0)
    if not (model == "smollm3" and (n + 1) % 4 == 0):
        theta = c["rope_local_base_freq"] if model == "gemma3_text" and local else c["rope_theta"]
        q, k = (_turn(y, theta, c.get("rope_scaling")) for y in (q, k))
    k, v = (np.repeat(y, heads // kv, axis=1) for y in (k, v))
    scores = np.einsum("ihd,jhd->hij", q, k) / math.sqrt(c.get("query_pre_attn_scalar", width))
    if cap := c.get("attn_logit_softcapping"):
        scores = cap * np.tanh(scores / cap)
    ahead = np.arange(length)[:, None] - np.arange(length)[None, :]
    hidden = (ahead < 0) | (local & (ahead >= c.get("sliding_window", length)))
    scores = np.where(hidden[None], -np.inf, scores)
    mixed = np.einsum("hij,jhd->ihd", _softmax(scores), v).reshape(length, -1)
    return _affine(mixed, w, f"{stem}.o_proj")


def _turn(x: np.ndarray, theta: float, scaling: dict[str, Any] | None) -> np.ndarray:
    """Turn the pairs (first half, second half) of each head by its position."""
    width = x.shape[-1]
    frequencies = theta ** (-np.arange(0, width, 2) / width)
    if scaling:
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        turns = scaling["original_max_position_embeddings"] * frequencies / (2 * math.pi)
        smooth = np.clip((turns - low) / (high - low), 0, 1)
        frequencies = frequencies * ((1 - smooth) / scaling["factor"] + smooth)
    angles = np.arange(len(x))[:, None, None] * frequencies
    one, other = x[..., : width // 2], x[..., width // 2 :]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([one * cos - other * sin, other * cos + one * sin], axis=-1)


def _mlp(w: dict[str, np.ndarray], stem: str, x: np.ndarray, *, gemma: bool) -> np.ndarray:
    gate = _affine(x, w, f"{stem}.mlp.gate_proj")
    if gemma:
        gate = 0.5 * gate * (1 + np.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)))
    else:
        gate = gate / (1 + np.exp(-gate))
    return _affine(gate * _affine(x, w, f"{stem}.mlp.up_proj"), w, f"{stem}.mlp.down_proj")


def _affine(x: np.ndarray, w: dict[str, np.ndarray], stem: str) -> np.ndarray:
    product = x @ w[f"{stem}.weight"].T.astype(np.float64)
    return product + w[f"{stem}.bias"] if f"{stem}.bias" in w else product


def _rms(x: np.ndarray, weight: np.ndarray, c: dict[str, Any], *, gemma: bool) -> np.ndarray:
    scale = weight + 1.0 if gemma else weight
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + c["rms_norm_eps"]) * scale


def _layer_norm(
    x: np.ndarray, w: dict[str, np.ndarray], stem: str, c: dict[str, Any]
) -> np.ndarray:
    middle = x - x.mean(axis=-1, keepdims=True)
    spread = np.sqrt((middle**2).mean(axis=-1, keepdims=True) + c["layer_norm_eps"])
    return middle / spread * w[f"{stem}.weight"] + w[f"{stem}.bias"]


def _softmax(x: np.ndarray) -> np.ndarray:
    raised = np.exp(x - x.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)
