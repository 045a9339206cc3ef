"""The ways of turning activations, gradients or further questions to the model into maps; `table` has them by name."""
