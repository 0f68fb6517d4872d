"""Problems to a small, fast model: data, SFT, GRPO, quantization."""
