"""From safetensors, as training leaves them, to GGUF, as llama.cpp runs them; without torch.

``plan`` decides everything from headers and small files, ``write`` streams the weights. Both need
the extra ``convert`` (gguf, numpy) and run in a process of their own (``python -m``).
"""
