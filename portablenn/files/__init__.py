"""Files: atomic writes, safetensors, model files and checkpoints."""
