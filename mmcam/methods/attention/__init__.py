"""Explanations of transformers by their attention probabilities.

- `mmcam.methods.attention.maths`: the papers' formulas, pure functions of attention probabilities and their gradients.
- `mmcam.methods.attention.capture`: gets both out of any model that ends in `F.scaled_dot_product_attention`.
- `mmcam.methods.attention.blocks`: the tokens after every block, and scores of those of an earlier one (for LeGrad).
- `mmcam.methods.attention.chain`: which attention looks from where to where, and which tokens a score is read at.
- `mmcam.methods.attention.methods`: the methods by name, `explain(…, method="attention_relevance")`.
"""

from mmcam.methods.attention.methods import attention_relevance, attention_rollout, gradient_attention, legrad

__all__ = ["attention_relevance", "attention_rollout", "gradient_attention", "legrad"]
