"""Where models come from: what a name stands for, and GGUF files turned into what transformers trains."""
