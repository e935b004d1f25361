#!/usr/bin/env python3
"""A small OpenAI-compatible server whose start reads files as a real inference server's does: thousands of Python files without
.pyc, several large .so of which it needs a part, then the model. The answers are computed from the model (see mkmodel.py)."""
import os
import signal

# As PID 1 nothing has a default action, and the imports below take a while.
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
signal.signal(signal.SIGINT, lambda *_: os._exit(0))

import argparse
import json
import time
import uuid
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import scipy.fft
import scipy.integrate
import scipy.interpolate
import scipy.linalg
import scipy.ndimage
import scipy.optimize
import scipy.signal
import scipy.sparse
import scipy.sparse.linalg
import scipy.spatial
import scipy.special
import scipy.stats
import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, Field
from tokenizers import Tokenizer

import selfcheck

NAME = "m"
EOS = 1


class Model:
    def __init__(self, folder):
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.embedding = np.load(folder / "embedding.npy", mmap_mode="r")
        self.head = np.load(folder / "head.npy", mmap_mode="r")
        self.bigrams = scipy.sparse.load_npz(folder / "bigrams.npz")
        onnx.checker.check_model(onnx.load(folder / "gru.onnx"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.gru = onnxruntime.InferenceSession(folder / "gru.onnx", options, providers=["CPUExecutionProvider"])

    def encode(self, text):
        return self.tokenizer.encode(text).ids

    def generate(self, prompt, max_tokens, temperature, seed):
        """Yields up to max_tokens token ids."""
        rng = np.random.default_rng(seed)
        state = np.zeros((1, 1, self.embedding.shape[1]), np.float32)
        ids, penalty = prompt, np.zeros(len(self.head), np.float32)
        for _ in range(max_tokens):
            x = self.embedding[ids][:, np.newaxis, :]
            (state,) = self.gru.run(None, {"x": x, "h": state})
            logits = scipy.linalg.blas.sgemv(1.0, self.head.T, state[0, 0], trans=1)
            logits += 2 * self.bigrams[[ids[-1]]].toarray()[0] - penalty
            logits[self.tokenizer.get_vocab_size():] = -np.inf
            if temperature > 0:
                token = int(rng.choice(len(logits), p=scipy.special.softmax(logits.astype(np.float64) / temperature)))
            else:
                token = int(logits.argmax())
            if token == EOS:
                return
            penalty[token] += 3
            ids = [token]
            yield token


class Message(BaseModel):
    role: str
    content: str


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    model: str = NAME
    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1, le=1024)
    max_completion_tokens: int | None = Field(None, ge=1, le=1024)
    temperature: float = Field(0.0, ge=0.0, le=2.0)
    seed: int | None = Field(None, ge=0)
    n: Literal[1] = 1
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


def make_app(model):
    app = FastAPI(title="esgz mini")
    started = int(time.time())
    requests = pd.DataFrame({"prompt_tokens": [], "completion_tokens": [], "seconds": []})

    @app.get("/health")
    def health():
        return Response()

    @app.get("/v1/models")
    def models():
        return {"object": "list", "data": [{"id": NAME, "object": "model", "created": started, "owned_by": "esgz"}]}

    @app.get("/selfcheck")
    def check():
        return selfcheck.check()

    @app.get("/stats")
    def stats():
        return json.loads(requests.describe().to_json()) if len(requests) else {}

    @app.post("/v1/chat/completions")
    def chat(request: ChatRequest):
        if request.model != NAME:
            raise HTTPException(404, f"The model `{request.model}` does not exist.")
        begin = time.monotonic()
        prompt = model.encode("".join(f"{m.role}: {m.content}\n" for m in request.messages) + "assistant:")
        limit = request.max_completion_tokens or request.max_tokens or 16
        tokens = model.generate(prompt, limit, request.temperature, request.seed)
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": NAME}

        def usage(ids):
            requests.loc[len(requests)] = [len(prompt), len(ids), time.monotonic() - begin]
            return Usage(prompt_tokens=len(prompt), completion_tokens=len(ids), total_tokens=len(prompt) + len(ids)).model_dump()

        def reason(ids):
            return "length" if len(ids) == limit else "stop"

        if not request.stream:
            ids = list(tokens)
            message = {"role": "assistant", "content": model.tokenizer.decode(ids)}
            choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason(ids)}
            return head | {"object": "chat.completion", "choices": [choice], "usage": usage(ids)}

        def events():
            def event(choices, **more):
                return f"data: {json.dumps(head | {'object': 'chat.completion.chunk', 'choices': choices} | more)}\n\n"

            def delta(content, finish=None):
                return event([{"index": 0, "delta": content, "finish_reason": finish}])

            yield delta({"role": "assistant", "content": ""})
            ids, sent = [], ""
            for token in tokens:
                ids.append(token)
                text = model.tokenizer.decode(ids)
                if not text.endswith("\N{REPLACEMENT CHARACTER}"):    # a character may take several tokens
                    yield delta({"content": text[len(sent):]})
                    sent = text
            yield delta({"content": model.tokenizer.decode(ids)[len(sent):]}, reason(ids))
            totals = usage(ids)
            if request.stream_options.include_usage:
                yield event([], usage=totals)
            yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    return app


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--host", default="127.0.0.1")
    args.add_argument("--port", type=int, default=int(os.environ.get("ESGZ_PORT") or 8000))
    args.add_argument("--model", type=Path, default=Path("/opt/model"))
    args = args.parse_args()
    model = Model(args.model)
    list(model.generate(model.encode("warm up"), 1, 0, None))
    uvicorn.run(make_app(model), host=args.host, port=args.port, log_level="warning", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
