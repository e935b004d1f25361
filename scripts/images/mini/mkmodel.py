#!/usr/bin/env python3
"""mkmodel.py OUT TEXTS: a tiny deterministic language model, learnt from the plain files in the folder TEXTS.

tokenizer.json  byte-level BPE
embedding.npy   VOCAB x HIDDEN, seeded noise; the output head is the same matrix
gru.onnx        a GRU with seeded weights, run by onnxruntime
bigrams.npz     log counts of token pairs, a scipy sparse matrix: keeps the answers close to the texts
"""
import sys
from pathlib import Path

import numpy as np
import onnx
import scipy.sparse
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB, HIDDEN = 4096, 256


def main(out, texts):
    out = Path(out)
    out.mkdir(parents=True)
    corpus = [p.read_text(errors="replace") for p in sorted(Path(texts).iterdir()) if p.is_file() and not p.is_symlink()]

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=["<s>", "</s>"], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    tokenizer.save(str(out / "tokenizer.json"))

    pairs = scipy.sparse.coo_matrix((VOCAB, VOCAB))
    for text in corpus:
        ids = np.array(tokenizer.encode(" ".join(text.split())).ids)
        ones = np.ones(len(ids) - 1)
        pairs = pairs + scipy.sparse.coo_matrix((ones, (ids[:-1], ids[1:])), shape=(VOCAB, VOCAB))
    scipy.sparse.save_npz(out / "bigrams.npz", scipy.sparse.csr_matrix(pairs).log1p().astype(np.float32))

    rng = np.random.default_rng(1)

    def noise(*shape):
        return (rng.standard_normal(shape) / np.sqrt(HIDDEN)).astype(np.float32)

    np.save(out / "embedding.npy", noise(VOCAB, HIDDEN) * 4)
    weights = [
        numpy_helper.from_array(noise(1, 3 * HIDDEN, HIDDEN), "W"),
        numpy_helper.from_array(noise(1, 3 * HIDDEN, HIDDEN), "R"),
    ]
    state = [1, 1, HIDDEN]
    graph = helper.make_graph(
        [helper.make_node("GRU", ["x", "W", "R", "", "", "h"], ["", "h_next"], hidden_size=HIDDEN)], "gru",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, HIDDEN]),
         helper.make_tensor_value_info("h", TensorProto.FLOAT, state)],
        [helper.make_tensor_value_info("h_next", TensorProto.FLOAT, state)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, out / "gru.onnx")


if __name__ == "__main__":
    main(*sys.argv[1:])
