"""Reading, checking, drawing and augmenting RGB-thermal pairs; nothing here needs a model."""
