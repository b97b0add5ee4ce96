"""An independent oracle: the decoder and llama2.c's encoder, the slow and obvious way."""

import numpy as np


def rms_norm(x, scale):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * scale


def rotate(x, position):
    """x [k]; pairs (2i, 2i+1) as complex numbers, turned by position * 10000^(-2i/k)."""
    pairs = x[0::2] + 1j * x[1::2]
    turned = pairs * np.exp(1j * position * 10000.0 ** (-np.arange(0, len(x), 2) / len(x)))
    return np.stack([turned.real, turned.imag], -1).reshape(-1)


def forward(params, ids):
    """Logits [T, V] in float64, one position and one head at a time."""
    params = _float64(params)
    layers = params["layers"]
    x = params["embedding"][np.asarray(ids)]
    for i in range(len(layers["mlp_norm"])):
        attention = {name: w[i] for name, w in layers["attention"].items()}
        mlp = {name: w[i] for name, w in layers["mlp"].items()}
        x = x + attend(rms_norm(x, layers["attention_norm"][i]), attention)
        h = rms_norm(x, layers["mlp_norm"][i])
        gate = h @ mlp["gate"]
        x = x + (gate / (1 + np.exp(-gate)) * (h @ mlp["up"])) @ mlp["down"]
    x = rms_norm(x, params["final_norm"])
    return x @ params.get("head", params["embedding"].T)


def attend(x, weights):
    heads, k = weights["query"].shape[1:]
    share = heads // weights["key"].shape[1]
    out = np.zeros_like(x)
    for head in range(heads):
        query = [rotate(q, t) for t, q in enumerate(x @ weights["query"][:, head])]
        key = [rotate(q, t) for t, q in enumerate(x @ weights["key"][:, head // share])]
        value = x @ weights["value"][:, head // share]
        for t in range(len(x)):
            scores = np.array([query[t] @ key[s] for s in range(t + 1)]) / np.sqrt(k)
            p = np.exp(scores - scores.max())
            out[t] += (p / p.sum()) @ value[: t + 1] @ weights["output"][head]
    return out


def _float64(tree):
    if isinstance(tree, dict):
        return {key: _float64(value) for key, value in tree.items()}
    return np.asarray(tree, np.float64)


def encode(text, tokens, scores, bos):
    """run.c's encode, line by line: rescan all pairs after every merge."""
    ids = {}
    for index, token in enumerate(tokens):
        ids.setdefault(token, index)
    out = []
    for character in (" " + text) if text else "":
        if character in ids:
            out.append(ids[character])
        else:
            out.extend(ids[f"<0x{byte:02X}>"] for byte in character.encode())
    while True:
        best, best_score = None, -1e10
        for i in range(len(out) - 1):
            merged = ids.get(tokens[out[i]] + tokens[out[i + 1]])
            if merged is not None and np.float32(scores[merged]) > best_score:
                best, best_score = (i, merged), np.float32(scores[merged])
        if best is None:
            return [1] * bos + out
        out[best[0] : best[0] + 2] = [best[1]]
