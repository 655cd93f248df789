"""What this machine is: its cards, npu-smi, CANN, and the memory in use."""
