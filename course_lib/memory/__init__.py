"""How much memory training takes: the shapes of real models, a closed form, and what tensors really hold."""
