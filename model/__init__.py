"""The PyTorch definition of the models: mixture of transformers, codecs, presets, weight IO."""
