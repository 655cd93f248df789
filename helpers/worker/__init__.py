"""What runs inside a process that LLaMA-Factory or bitsandbytes owns."""
