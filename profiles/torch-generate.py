"""The workload of torch-generate-*.json: import PyTorch and transformers, put a small Llama with random weights on the GPU, generate
once, compile once. Nothing is downloaded; what is read is what any server of this stack reads before its first token."""

import torch
import transformers

config = transformers.LlamaConfig(
    vocab_size=32000, hidden_size=1024, intermediate_size=2816, num_hidden_layers=8, num_attention_heads=16, num_key_value_heads=8
)
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
model = transformers.LlamaForCausalLM(config).to(device=device, dtype=torch.bfloat16).eval()
tokens = torch.arange(16, device=device).unsqueeze(0)
with torch.inference_mode():
    out = model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=8, do_sample=False, pad_token_id=0)
    print("generated", out.shape[1] - tokens.shape[1], "tokens on", device, flush=True)
    compiled = torch.compile(lambda x: torch.nn.functional.silu(x) * x + 1)
    print("compiled", tuple(compiled(torch.randn(64, 64, device=device)).shape), flush=True)
