"""The network: SAM 2 encoder and decoder, LoRA, cross-modal fusion, and their files."""
