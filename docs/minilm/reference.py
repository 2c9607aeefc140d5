#!/usr/bin/env python3
"""What `cache/tests/minilm.rs` compares with: MiniLM's tokens and vectors, computed from its files
with numpy alone, in 64 bits, and the whole of Unicode's tables.

    scripts/fetch-minilm DIR
    docs/minilm/reference.py DIR > cache/tests/minilm/reference.json

Before it writes anything it makes sure of itself: the similarities of three sentences are those that
the model's authors print (https://sbert.net, "Quickstart").
"""

import json
import math
import pathlib
import sys
import unicodedata

import numpy

LONG = (
    "A model file in the page cache is already in memory; copying it to read it is waste. "
    "Whoever maps the file instead reads nothing at all: pages come when they are touched, and "
    "every process that maps the same file shares them. "
)
SENTENCES = [
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
    "Rain, hail & snow are expected tomorrow; temperatures will fall below -5 °C.",
    "Le café était fermé à cause de la tempête de neige.",
    "Über den Straßen von Łódź schien gestern die Sonne…",
    "The GARBAGE collector (mark-and-sweep) freed 1,536 bytes in 0.25 ms.",
    "Weights are memory-mapped: nothing is copied until somebody writes.",
    "xqzvbk pneumonoultramicroscopicsilicovolcanoconiosis " + "z" * 101 + " 🦀 end",
    "今天天气很好。",
    "Сегодня хорошая погода, а\u00adзавтра\tбудет\u200b дождь?",
    "  \r\n",
    LONG,
    # Longer than the model reads.
    LONG * 8,
]
PUBLISHED = [[1.0000, 0.6660, 0.1046], [0.6660, 1.0000, 0.1411], [0.1046, 0.1411, 1.0000]]

# Where the example's tokenizer promises to be exact: Latin, Greek and Cyrillic letters, and
# punctuation.
EXACT = [(0x0000, 0x04FF), (0x1E00, 0x1EFF), (0x2000, 0x206F), (0x3000, 0x301F), (0xFF00, 0xFF65)]
IDEOGRAPHS = [
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
]  # fmt: skip


def is_punctuation(char):
    symbol = char.isascii() and char.isprintable() and not char.isalnum() and char != " "
    return symbol or unicodedata.category(char).startswith("P")


def words(text):
    """The words and marks of a text, as BERT's uncased models split it."""
    spaced = ""
    for char in text:
        if char in "\t\n\r" or unicodedata.category(char) in ("Zs", "Zl", "Zp"):
            spaced += " "
        elif char == "\ufffd" or unicodedata.category(char).startswith("C"):
            continue
        elif any(first <= ord(char) <= last for first, last in IDEOGRAPHS):
            spaced += f" {char} "
        else:
            spaced += char
    decomposed = unicodedata.normalize("NFD", spaced)
    bare = "".join(char for char in decomposed if unicodedata.category(char) != "Mn")
    # One by one: a final sigma is as any other.
    lower = "".join(char.lower() for char in bare)
    return "".join(f" {char} " if is_punctuation(char) else char for char in lower).split()


def pieces(word, vocabulary):
    """The longest pieces of a word that the vocabulary has, from left to right."""
    found, start = [], 0
    while start < len(word) <= 100:
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in vocabulary:
                found.append(vocabulary[piece])
                start = end
                break
        else:
            return [vocabulary["[UNK]"]]
    return found or [vocabulary["[UNK]"]]


def tokens(text, vocabulary, longest):
    ids = [id for word in words(text) for id in pieces(word, vocabulary)]
    return [vocabulary["[CLS]"], *ids[: longest - 2], vocabulary["[SEP]"]]


def read_weights(path):
    """The tensors of a safetensors file: https://huggingface.co/docs/safetensors, "Format"."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    weights = {}
    for name, info in json.loads(data[8:end]).items():
        if name != "__metadata__" and info["dtype"] == "F32":
            begin, stop = info["data_offsets"]
            values = numpy.frombuffer(data[end + begin : end + stop], "<f4")
            weights[name] = values.reshape(info["shape"]).astype(numpy.float64)
    return weights


class Encoder:
    """BERT (https://arxiv.org/abs/1810.04805), its last states averaged, made one long."""

    def __init__(self, weights, config):
        self.weights = weights
        self.config = config

    def linear(self, name, state):
        return state @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def norm(self, name, state):
        centred = state - state.mean(axis=-1, keepdims=True)
        variance = (centred * centred).mean(axis=-1, keepdims=True)
        scaled = centred / numpy.sqrt(variance + self.config["layer_norm_eps"])
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def attention(self, name, state):
        query = self.linear(f"{name}.query", state)
        key = self.linear(f"{name}.key", state)
        value = self.linear(f"{name}.value", state)
        width = self.config["hidden_size"] // self.config["num_attention_heads"]
        context = numpy.empty_like(state)
        for begin in range(0, state.shape[1], width):
            head = slice(begin, begin + width)
            scores = query[:, head] @ key[:, head].T / math.sqrt(width)
            powers = numpy.exp(scores - scores.max(axis=-1, keepdims=True))
            context[:, head] = powers / powers.sum(axis=-1, keepdims=True) @ value[:, head]
        return context

    def embed(self, ids):
        words, positions, kinds = (
            self.weights[f"embeddings.{part}_embeddings.weight"]
            for part in ("word", "position", "token_type")
        )
        state = words[ids] + positions[: len(ids)] + kinds[0]
        state = self.norm("embeddings.LayerNorm", state)
        for layer in range(self.config["num_hidden_layers"]):
            at = f"encoder.layer.{layer}."
            context = self.attention(at + "attention.self", state)
            context = self.linear(at + "attention.output.dense", context)
            state = self.norm(at + "attention.output.LayerNorm", state + context)
            inner = gelu(self.linear(at + "intermediate.dense", state))
            outer = self.linear(at + "output.dense", inner)
            state = self.norm(at + "output.LayerNorm", state + outer)
        mean = state.mean(axis=0)
        return mean / numpy.linalg.norm(mean)


def gelu(values):
    erf = numpy.frompyfunc(math.erf, 1, 1)
    return values * 0.5 * (1 + erf(values / math.sqrt(2)).astype(numpy.float64))


def characters():
    """What becomes of each assigned character between two letters."""
    listed = {}
    for first, last in EXACT:
        for code in range(first, last + 1):
            if unicodedata.category(chr(code)) != "Cn":
                listed[chr(code)] = " ".join(words(f"a{chr(code)}b"))
    return listed


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    config = json.loads((folder / "config.json").read_text())
    longest = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
    lines = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    vocabulary = {line: id for id, line in enumerate(lines) if line}
    weights = read_weights(folder / "model.safetensors")
    encoder = Encoder(weights, config)

    listed = []
    for text in SENTENCES:
        ids = tokens(text, vocabulary, longest)
        listed.append({"text": text, "tokens": ids, "vector": encoder.embed(ids)})
    vectors = numpy.array([sentence["vector"] for sentence in listed])
    similarities = vectors @ vectors.T
    seen = similarities[:3, :3].round(4)
    if not (seen == PUBLISHED).all():
        sys.exit(f"reference.py: similarities are {seen.tolist()}, not the published {PUBLISHED}")
    for row in numpy.sort(similarities, axis=1):
        # An order that rounding could turn says nothing.
        if numpy.diff(row).min() < 1e-4:
            sys.exit(f"reference.py: two sentences are too alike to be put in order: {row.tolist()}")

    for sentence in listed:
        sentence["vector"] = [round(value, 8) for value in sentence["vector"].tolist()]
    print('{"sentences": [\n' + ",\n".join(map(json.dumps, listed)) + "\n],")
    print('"characters": ' + json.dumps(characters()) + "}")


main()
